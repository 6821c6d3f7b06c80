"""The service over real sockets, between a client and the offline OpenAI."""
