"""Methods that change the network's structure: experts, claimed units, maps over the weights."""
