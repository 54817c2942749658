"""A stand-in of AWS for the tests: moto, with what it lacks or gets wrong replaced, and an oracle that reads every exchange.

One process serves many tests. What they hold is kept apart by account: the first ten digits of an account's id are a test's
own (its *tenant*), the last two number its accounts. README.md has the whole of it."""
