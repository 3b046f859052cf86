"""The server: recordings over HTTP, speech over WebSockets, the page, and their bounds."""
