"""Measures of recognition quality."""
