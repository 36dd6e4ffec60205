"""A plug-in of streamllm: what it adds is named in its folder conf/."""
