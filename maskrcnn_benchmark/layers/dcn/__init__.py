"""Import path of the forks; see layers.deform_conv."""
