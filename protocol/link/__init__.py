"""The way over MQTT: one durable link, whatever the broker, the proxy and the network do."""
