"""HTTP/1.1 with connections that stay, which werkzeug's own server has not, and that can be dropped on demand."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import app


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # A request's head and body arrive together; the answer is sent by one write.
    rbufsize = 1 << 20
    wbufsize = 1 << 20

    def log_message(self, *_):
        pass

    def _body(self):
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while True:
            length = int(self.rfile.readline().split(b";")[0], 16)
            if length == 0:
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)
            parts.append(self.rfile.read(length))
            self.rfile.readline()

    def _serve(self):
        body = self._body()
        answer = app.handle(self.command, self.path, self.headers.items(), body, self.client_address[0])
        if answer is app.DROPPED:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = answer
        self.send_response_only(status)
        named = set()
        for key, value in headers:
            named.add(key.lower())
            self.send_header(key, value)
        if "content-length" not in named:
            self.send_header("Content-Length", str(len(body)))
        if "date" not in named:
            self.send_header("Date", self.date_time_string())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _serve


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request, client_address):
        """A client that is killed leaves its connection; that is no error of the server."""
