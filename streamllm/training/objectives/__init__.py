"""Training objectives, one small file and one YAML of conf/objective each (protocol: `objective.Objective`)."""
