"""Finding the training that holds up best on a device."""
