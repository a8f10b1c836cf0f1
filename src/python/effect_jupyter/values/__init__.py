"""Values of kernels. The sources of these modules are sent to a kernel, which has no folder with them."""
