"""Compares the offline OpenAI, which comes with every project, with the real API."""
