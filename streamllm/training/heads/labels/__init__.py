"""Where a write head's labels come from, a small file and a YAML of conf/labels each (protocol: `labels.Labels`)."""
