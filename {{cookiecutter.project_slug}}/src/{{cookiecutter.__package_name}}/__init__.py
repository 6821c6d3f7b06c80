"""An HTTP service in front of OpenAI."""
