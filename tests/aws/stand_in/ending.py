"""What has to go when the server ends: functions that files with processes of their own put here."""

_last = []


def when_ending(function):
    _last.append(function)


def at_end():
    for function in reversed(_last):
        try:
            function()
        except Exception as error:  # the others still have to go
            print(f"warning: {error}", flush=True)
