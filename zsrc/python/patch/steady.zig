//! Sockets of the program's that stay watched from one receive to the next.
//!
//! To look at a file afresh before each wait (ready.zig) is a system call, and to find out that
//! nothing has come is another. A server that answers has twice as many as it needs. So the first
//! wait on a socket has the poller watch it until it is closed, and its descriptor's mark says from
//! then on whether a receive may find something (netpoll/desc.zig). One that gave less than was
//! asked for has emptied a TCP socket: the next waits without an attempt.
//!
//! The mark must not be another file's. The poller is told of closes by socket.close(), os.close()
//! and os.dup2(), but not of a socket that is collected while it is open: a new object may have its
//! address, and a new file its number. So the sign that the poller watches the file is in the
//! object itself, where Python puts its own value whenever it begins or begins anew: in place of
//! the function that raises OSError for it, which is the same for all sockets, is one that does the
//! same. An object without the sign is looked at afresh.
//!
//! All of it needs the interpreter's lock, which is held from the look at the mark to the wait.
const std = @import("std");
const os = @import("../../os/os.zig");
const netpoll_sockets = @import("../../netpoll/sockets.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const buffered = @import("../host/buffered.zig");
const goroutine = @import("../host/goroutine.zig");
const ready = @import("ready.zig");
const Socket = @import("sockets.zig").Socket;

const lane = &host.the_lane;
const net = os.net;

pub const Desc = netpoll_sockets.Desc;

/// The last Python whose sockets are known to have such a function there.
const last_minor = 15;

/// Python's own; null if it is not known.
var own_handler: ?*const anyopaque = null;

fn handler() callconv(.c) ?*py.Object {
    return py.PyErr_SetFromErrno(py.exc.osError());
}

/// Learns from two new sockets what Python has there.
pub fn learn(one: *const Socket, other: *const Socket) void {
    const known = py.minor() <= last_minor and one.errorhandler == other.errorhandler;
    own_handler = if (known) one.errorhandler else null;
}

/// The descriptor of one that is watched all the time.
pub inline fn of(s: *const Socket) ?*Desc {
    if (s.errorhandler != @as(*const anyopaque, &handler)) return null;
    return host.poller.steady(.of(s.fd));
}

/// After a receive that had the mark: `emptied` if nothing can be left of a TCP socket's.
pub inline fn settle(d: *Desc, emptied: bool) void {
    host.poller.settle(d, &d.read, !emptied or d.stops_short);
}

/// Parks the calling goroutine until a receive may find something, or until `deadline`, after one
/// that has found nothing, or would have.
pub fn wait(s: *Socket, deadline: ?u64) ready.Waited {
    const p = goroutine.forPark() orelse return .raised;
    const d = of(s) orelse begin(s) orelse return ready.one(s.fd, .{ .read = true }, deadline);
    // Others may have run since.
    if (d.read.ready) return .ready;
    var waiter: netpoll_sockets.Waiter = .{ .wait = &p.g, .tries = false };
    lane.prepare(&p.g);
    host.poller.link(&d.read, &waiter);
    const calls = buffered.leaveThread(p);
    const how = lane.park(&p.g, .io_read, deadline);
    buffered.enterThread(p, calls);
    host.poller.unlink(&d.read, &waiter, how == .ready or how == .closed);
    return switch (how) {
        .ready, .closed => .ready,
        .timeout => .timeout,
        .interrupted => if (goroutine.raisePending(p)) .raised else .ready,
    };
}

/// Has it watched from now on. Null if it can't be, or would not be known again.
fn begin(s: *Socket) ?*Desc {
    const own = own_handler orelse return null;
    if (s.errorhandler != own and s.errorhandler != @as(*const anyopaque, &handler)) return null;
    const d = host.poller.watchSteadily(.of(s.fd)) catch return null;
    d.stops_short = !net.isTcp(.of(s.fd));
    s.errorhandler = &handler;
    return d;
}
