"""The rules of the stand-in, each tried by AWS's own Python SDK against a started server; and those of the templates in
cloudformation/."""
