//! What is left when a bake fails, is killed, or meets a machine that fails it: nothing, or what the error lists and
//! `bakehouse sweep` removes. By the program as users run it, on a base of 64 MiB.

mod cloud;
