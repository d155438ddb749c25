"""Methods that turn the gradient of the new loss so that earlier losses do not rise."""
