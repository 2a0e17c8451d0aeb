"""One small interface for work in the background: progress, pause, resume, cancel, result, error.

The work itself is a plain function ``work(request, control)`` with a frozen, picklable request. It runs in this thread
(`InlineControl`, the command line), on a thread (`ThreadJob`, work without torch) or in a spawned child process
(`ProcessJob`, anything with torch: a child never holds the window and gives its memory back).
"""
