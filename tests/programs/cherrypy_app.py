"""The same as app.py, as a CherryPy application, which runs its server itself."""

import sys

import app as wsgi
import cherrypy

cherrypy.tree.graft(wsgi.app, "/")
cherrypy.config.update(
    {
        "environment": "production",
        "server.socket_port": int(sys.argv[1]),
        "server.thread_pool": 100,
        "server.socket_queue_size": 500,
    }
)
cherrypy.engine.signals.subscribe()
cherrypy.engine.start()
cherrypy.engine.block()
