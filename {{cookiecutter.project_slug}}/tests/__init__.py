"""The service over real sockets, between a caller and the offline OpenAI."""
