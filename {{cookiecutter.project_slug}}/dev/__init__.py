"""Tools for developing the service: in neither the wheel nor the image."""
