"""Descriptions of analog devices: one YAML file each, read by ``noiserobust.DeviceNoise.from_profile``."""
