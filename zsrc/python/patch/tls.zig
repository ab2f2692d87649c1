//! TLS sockets in goroutines: a handshake, read, write or shutdown that would wait parks the
//! goroutine.
//!
//! What the peer has to send or take for such a call only OpenSSL knows. So the original is called
//! as for a socket that does not wait, says by SSLWantReadError or SSLWantWriteError what it waits
//! for, and is called again when that is there. For the time of an attempt, which waits for
//! nothing, the socket has time-out 0, and a descriptor that blocks does not. The interpreter's
//! lock is let go meanwhile: whoever else has a call for that socket waits until the attempt is
//! over. A write that was begun must be ended before the next: writers have their turns.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const identity = @import("../host/identity.zig");
const parking = @import("../host/parking.zig");
const replace = @import("../host/replace.zig");
const ready = @import("ready.zig");
const sockets = @import("sockets.zig");

const lane = &host.the_lane;
const Socket = sockets.Socket;

/// PySSLSocket of Modules/_ssl.c, 3.11 to 3.15.
const TlsSocket = extern struct {
    ob: py.Object,
    /// A weak reference to the socket; null where bytes come from elsewhere.
    socket: ?*py.Object,

    /// Whether no goroutine writes on it, for one that wants to: see parking.take.
    pub fn tryTake(t: *TlsSocket, _: u64) bool {
        var it = writing;
        while (it) |w| : (it = w.next) if (w.tls == t) return false;
        return true;
    }
};

/// An attempt that goes on, on its goroutine's stack.
const Attempt = struct {
    socket: *Socket,
    timeout: i64,
    next: ?*Attempt,

    fn begin(a: *Attempt) void {
        attempts = a;
        a.socket.timeout = 0;
        if (a.timeout < 0) os.net.setBlocking(.of(a.socket.fd), false);
    }

    fn end(a: *Attempt) void {
        var link = &attempts;
        while (link.*.? != a) link = &link.*.?.next;
        link.* = a.next;
        a.restore();
    }

    fn restore(a: *Attempt) void {
        // Somebody may have set another meanwhile, or closed it.
        if (a.socket.timeout == 0) a.socket.timeout = a.timeout;
        if (a.timeout < 0 and a.socket.fd >= 0) os.net.setBlocking(.of(a.socket.fd), true);
    }
};

var attempts: ?*Attempt = null;

fn isAttempted(s: *const Socket) bool {
    var it = attempts;
    while (it) |a| : (it = a.next) if (a.socket == s) return true;
    return false;
}

/// In the child of a fork the attempts of others are over.
pub fn forget() void {
    var it = attempts;
    attempts = null;
    while (it) |a| : (it = a.next) a.restore();
    writing = null;
}

/// One that writes, on its goroutine's stack.
const Writing = struct {
    tls: *TlsSocket,
    next: ?*Writing,

    fn begin(w: *Writing) void {
        writing = w;
    }

    fn end(w: *Writing) void {
        var link = &writing;
        while (link.*.? != w) link = &link.*.?.next;
        link.* = w.next;
        if (parking.waiting > 0) parking.wakeNext(w.tls);
    }
};

var writing: ?*Writing = null;

inline fn applies() bool {
    return attempts != null or identity.inGoroutine();
}

const Kind = enum { handshake, read, write, shutdown };

fn Waiting(comptime name: [:0]const u8, comptime kind: Kind) type {
    return struct {
        const Replaced = replace.Replacement("_ssl", "_SSLSocket." ++ name, applies, call);

        fn call(c: replace.Call) ?*py.Object {
            const tls: *TlsSocket = @ptrCast(@alignCast(c.self.?));
            const owner = socketOf(tls) orelse return Replaced.callOriginal(c);
            defer py.decref(owner);
            const s: *Socket = .of(owner);
            while (isAttempted(s)) letOthers();
            if (s.timeout == 0 or s.fd < 0 or !identity.inGoroutine() or lane.here() == null)
                return Replaced.callOriginal(c);
            if (kind != .write) return repeat(c, s);
            _ = parking.take(tls, 0, .forever, .may_raise, parking.giveNothing) orelse return null;
            var w: Writing = .{ .tls = tls, .next = writing };
            w.begin();
            defer w.end();
            return repeat(c, s);
        }

        fn repeat(c: replace.Call, s: *Socket) ?*py.Object {
            const deadline = ready.deadlineOf(s.timeout);
            while (true) {
                while (isAttempted(s)) letOthers();
                var a: Attempt = .{ .socket = s, .timeout = s.timeout, .next = attempts };
                a.begin();
                const result = Replaced.callOriginal(c);
                a.end();
                if (result) |value| return value;
                const of = wanted() orelse return null;
                switch (ready.one(s.fd, of, deadline)) {
                    .ready => {},
                    .raised => return null,
                    .unwatched => return Replaced.callOriginal(c),
                    .timeout => return timedOut(if (of.write) .write else kind),
                }
            }
        }
    };
}

fn timedOut(kind: Kind) ?*py.Object {
    const what = switch (kind) {
        .handshake => "handshake",
        .write => "write",
        .read, .shutdown => "read",
    };
    return ready.raiseTimeout("The {s} operation timed out", .{what});
}

/// What the exception that is set waits for; it is cleared then. Null: it is another.
fn wanted() ?ready.Directions {
    if (py.PyErr_ExceptionMatches(want_read.?) != 0) {
        py.PyErr_Clear();
        return .{ .read = true };
    }
    if (py.PyErr_ExceptionMatches(want_write.?) != 0) {
        py.PyErr_Clear();
        return .{ .write = true };
    }
    return null;
}

/// A new reference; null if it has none.
fn socketOf(tls: *TlsSocket) ?*py.Object {
    const o = py.call(tls.socket orelse return null, &.{}) orelse {
        py.PyErr_Clear();
        return null;
    };
    if (socket_type != null and py.PyType_IsSubtype(o.type, socket_type.?) != 0) return o;
    py.decref(o);
    return null;
}

fn letOthers() void {
    const state = py.PyEval_SaveThread();
    os.sleepNs(20 * std.time.ns_per_us);
    py.PyEval_RestoreThread(state.?);
}

var want_read: ?*py.Object = null;
var want_write: ?*py.Object = null;
var socket_type: ?*py.Type = null;

pub const all = .{
    Waiting("do_handshake", .handshake).Replaced,
    Waiting("read", .read).Replaced,
    Waiting("write", .write).Replaced,
    Waiting("shutdown", .shutdown).Replaced,
};

/// Null with an exception set.
pub fn layoutIsKnown() ?bool {
    if (!(sockets.layoutIsKnown() orelse return null)) return false;
    if (want_read == null) want_read = py.importFrom("_ssl", "SSLWantReadError") orelse return null;
    if (want_write == null)
        want_write = py.importFrom("_ssl", "SSLWantWriteError") orelse return null;
    if (socket_type == null)
        socket_type = @ptrCast(replace.classOf("_socket", "socket") orelse return null);
    return refersToSocket();
}

/// Makes one, and looks whether it has the weak reference to its socket where that is expected.
fn refersToSocket() ?bool {
    const client = py.importFrom("_ssl", "PROTOCOL_TLS_CLIENT") orelse return null;
    defer py.decref(client);
    const make = py.importFrom("_ssl", "_SSLContext") orelse return null;
    defer py.decref(make);
    const context = py.call(make, &.{client}) orelse return null;
    defer py.decref(context);
    const wrap = py.PyObject_GetAttrString(context, "_wrap_socket") orelse return null;
    defer py.decref(wrap);
    const class = py.importFrom("socket", "socket") orelse return null;
    defer py.decref(class);
    const s = py.call(class, &.{}) orelse return null; // which has weak references
    defer py.decref(s);
    const o = py.call(wrap, &.{ s, py.false_() }) orelse return null;
    defer py.decref(o);
    const find = py.importFrom("_weakref", "getweakrefs") orelse return null;
    defer py.decref(find);
    const references = py.call(find, &.{s}) orelse return null;
    defer py.decref(references);
    const close = py.PyObject_GetAttrString(s, "close") orelse return null;
    defer py.decref(close);
    py.decref(py.call(close, &.{}) orelse return null);
    const t: *TlsSocket = @ptrCast(@alignCast(o));
    return py.PyList_Size(references) == 1 and py.PyList_GetItem(references, 0) == t.socket;
}
