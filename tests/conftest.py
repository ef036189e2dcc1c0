"""Where pytest finds the fixtures."""

pytest_plugins = ["fix_servers", "fix_service", "fix_proxy", "fix_tls"]
