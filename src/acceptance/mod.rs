//! Checks inside the image and the boot test.
