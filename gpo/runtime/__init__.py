"""The process and the asyncio task in which something runs."""
