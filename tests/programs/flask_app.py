"""The same as app.py, as a Flask application."""

import app as wsgi
from flask import Flask, request

app = Flask(__name__)


@app.route("/", methods=["POST"])
@app.route("/<word>")
def answer(word=""):
    return app.response_class.from_app(wsgi.app, request.environ)
