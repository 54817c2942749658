//! Disks: partition tables, file systems, loop devices, mounts, boot loaders, and their blocks.
