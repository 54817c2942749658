"""The one way by which operations get into moto. moto's classes are private to it: each part that is replaced must be there,
and each that is added must not, or the stand-in does not start."""

import importlib
import pkgutil


class Moto:
    def __init__(self):
        self.replaced, self.wrong = {}, []

    def replace(self, owner, name, with_):
        """Puts `with_` in the place of what `owner` has as `name`; answers the original."""
        original = getattr(owner, name, None)
        if original is None:
            self.wrong.append(f"{owner.__name__}.{name} is not in this moto; it cannot be replaced")
        self._set(owner, name, with_)
        return original

    def add(self, owner, name, with_):
        """Gives `owner` something that it lacks."""
        if getattr(owner, name, None) is not None:
            self.wrong.append(f"{owner.__name__}.{name} is in this moto already; replace it")
        self._set(owner, name, with_)

    def _set(self, owner, name, with_):
        if (owner, name) in self.replaced:
            self.wrong.append(f"{owner.__name__}.{name} is set twice")
        self.replaced[(owner, name)] = with_
        setattr(owner, name, with_)


def install_all():
    """Every module of this package that has an `install` puts its operations into moto."""
    import stand_in

    moto = Moto()
    for module in sorted(m.name for m in pkgutil.iter_modules(stand_in.__path__)):
        if module in ("__main__",):
            continue
        install = getattr(importlib.import_module(f"stand_in.{module}"), "install", None)
        if install is not None:
            install(moto)
    if moto.wrong:
        raise SystemExit("error: this is not the moto that the stand-in was written for:\n" + "\n".join(moto.wrong))
    return moto
