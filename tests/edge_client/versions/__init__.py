"""Tests of the versions that a site keeps."""
