"use strict";

// Text from data reaches the page through textContent and option labels only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const part = (id) => document.getElementById(id);

function node(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

// The button says what it does: it names the colours that a click brings.
function nameTheme() {
  part("theme").textContent = isDark() ? "Light colours" : "Dark colours";
  document.dispatchEvent(new Event("themechange"));
}

part("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemIsDark.addEventListener("change", nameTheme);
part("theme").hidden = false;
nameTheme();
