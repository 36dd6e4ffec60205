"""Where a write head's labels come from, one small file and one YAML of conf/labels each (protocol: `labels.Labels`)."""
