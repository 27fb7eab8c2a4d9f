"""What lies in deploy/ is real: units, the script that sets a machine up, broker, examples."""
