"""Elements: what is text is escaped, what is markup is not."""

import pytest

from asr.report.markup import element, join, raw_element


def test_by_hand():
    inner = element("b", "x < y & 'z'")
    assert inner.source == "<b>x &lt; y &amp; &#x27;z&#x27;</b>"
    assert element("p", inner, " \x1b").source == f"<p>{inner.source} ␛</p>"
    assert element("meta", name="n", http_equiv="e").source == '<meta name="n" http-equiv="e">'
    assert element("p", class_='"><i>', id=None).source == '<p class="&quot;&gt;&lt;i&gt;"></p>'
    assert join(["<", element("i")]).source == "&lt;<i></i>"


@pytest.mark.parametrize("source", ["x</script>", "<!-- x"])
def test_raw_content_cannot_end_its_element(source):
    assert raw_element("script", "a < b", id="s").source == '<script id="s">a < b</script>'
    with pytest.raises(ValueError, match="script: holds"):
        raw_element("script", source)
