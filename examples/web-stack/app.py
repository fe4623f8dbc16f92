"""app.py PORT REDIS_PORT: counts visits in redis, which it speaks to over a plain socket."""
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, REDIS_PORT = int(sys.argv[1]), int(sys.argv[2])


def redis(*words):
    """One command; the first line of the answer, without its type mark."""
    with socket.create_connection(("127.0.0.1", REDIS_PORT), timeout=2) as connection:
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(request.encode())
        answer = connection.makefile().readline().rstrip()
    if answer.startswith("-"):
        raise OSError(f"redis: {answer[1:]}")
    return answer[1:]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            if self.path == "/healthz":
                self.answer(200, redis("PING"))
            else:
                self.answer(200, f"visit {redis('INCR', 'visits')}")
        except OSError as error:
            self.answer(503, f"no redis: {error}")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
