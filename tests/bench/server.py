"""A small OpenAI-compatible server in the test's own event loop (or a thread's), whose answers a test scripts."""

import asyncio
import json
import threading
from contextlib import contextmanager

EVENT_STREAM = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


class Say:
    """Writes one answer piece by piece."""

    def __init__(self, writer, asked, path):
        self.writer, self.asked, self.is_chat = writer, asked, path.endswith("/chat/completions")

    async def head(self, status=200, headers=EVENT_STREAM):
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self.raw("\r\n".join(lines).encode())

    async def raw(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def piece(self, data):
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, document):
        text = document if isinstance(document, str) else json.dumps(document)
        await self.piece(f"data: {text}\n\n".encode())

    async def token(self, text="w ", finish_reason=None):
        body = {"delta": {"content": text}} if self.is_chat else {"text": text}
        await self.event({"choices": [{"index": 0, **body, "finish_reason": finish_reason}]})

    async def usage(self, prompt, output, **more):
        await self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output, **more}})

    async def end(self):
        await self.event("[DONE]")
        await self.raw(b"0\r\n\r\n")

    async def json(self, document, status=200, **headers):
        body = json.dumps(document).encode()
        await self.head(status, {"Content-Type": "application/json", "Content-Length": len(body), **headers})
        await self.raw(body)

    async def refuse(self, status, message, **headers):
        await self.json({"error": {"message": message}}, status, **headers)

    async def whole(self, tokens=None):
        """A good answer of the asked length."""
        count = self.asked.get("max_tokens", self.asked.get("max_completion_tokens")) if tokens is None else tokens
        await self.head()
        for i in range(count):
            await self.token(finish_reason="length" if i == count - 1 else None)
        if self.asked.get("stream_options"):
            await self.usage(prompt_tokens_of(self.asked), count)
        await self.end()

    def die(self):
        self.writer.transport.abort()


def prompt_tokens_of(asked):
    prompt = asked["messages"][0]["content"] if "messages" in asked else asked["prompt"]
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


async def whole(server, say):
    await say.whole()


class Server:
    """`behave(server, say)` answers each prompt. Keeps what was asked, in order, and how many were open at once."""

    def __init__(self, behave=whole, *, models=("m",), card=None, list_models=None):
        self.behave, self.list_models = behave, list_models
        self.cards = [{"id": name, **(card or {})} for name in models]
        self.asked, self.heads, self.open, self.most_open = [], [], 0, 0
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *problem):
        self.stop()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def stop(self):
        """No more connections; those there are stay."""
        self.server.close()

    async def _connected(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, path, _ = head.split("\r\n")[0].split(" ")
        length = next((int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length")), 0)
        body = await reader.readexactly(length)
        if method == "GET":
            say = Say(writer, {}, path)
            await (self.list_models(say) if self.list_models else say.json({"object": "list", "data": self.cards}))
            return True
        asked = json.loads(body)
        self.asked.append(asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.behave(self, Say(writer, asked, path))
        finally:
            self.open -= 1
        return not writer.transport.is_closing()


@contextmanager
def in_thread(server):
    """Runs a server in a loop of its own, for code that brings its own loop."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    over = asyncio.Event()

    async def serve():
        async with server:
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
