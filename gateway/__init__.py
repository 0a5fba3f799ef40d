"""The front door: wire protocol, sessions, hub, dispatch, auth; the WebSocket server, the HTTP API, the Python client."""
