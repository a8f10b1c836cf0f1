"""Values of kernels. A kernel is sent the sources of these modules, and has no folder of them."""
