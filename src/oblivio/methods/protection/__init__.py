"""Methods that change a model so that it stands up to attacks or to corrupted inputs."""
