"""python -m stand_in [--host 127.0.0.1] [--port 0] [--while-stdin]: serves until it is ended, and says where."""

import argparse
import os
import sys
import threading

# Before moto is imported: its AMIs are none of ours, and what does not exist is refused.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
os.environ["MOTO_ENABLE_AMI_VALIDATION"] = "true"
os.environ["MOTO_ENABLE_KEYPAIR_VALIDATION"] = "true"
os.environ["MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION"] = "true"


def main():
    parser = argparse.ArgumentParser(prog="stand_in", description="a stand-in of AWS for tests")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--while-stdin", action="store_true", help="end when standard input does")
    options = parser.parse_args()

    from .moto_parts import install_all

    install_all()
    from .server import Handler, Server
    from .world import WORLD

    server = Server((options.host, options.port), Handler)
    WORLD.address = f"http://{options.host}:{server.server_address[1]}"
    print(f"listening {WORLD.address}", flush=True)
    if options.while_stdin:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while sys.stdin.buffer.read(4096):
            pass
        # Threads may run a guest or a command: whoever began one takes it along.
        from .ending import at_end

        at_end()
        os._exit(0)
    server.serve_forever()


if __name__ == "__main__":
    main()
