"""OpenAI-compatible endpoints: the transport, the event reader, and which key goes to which origin."""
