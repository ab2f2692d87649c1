//! socket.socket in goroutines: what would wait parks the goroutine instead.
//!
//! The descriptor's flags stay as they are. recv(), recv_into(), send() and sendall() try with
//! MSG_DONTWAIT, one system call where the original makes two when it has a time-out, and recv()
//! not even that where it would be in vain (steady.zig). The others wait until the descriptor is
//! ready and call the original, which then does not wait; where another was quicker it does, as
//! any C call may. What fails at once must not wait: whether the arguments are right the original
//! says, of a socket that is closed. connect() makes the descriptor non-blocking for the instant in
//! which it begins the connection.
//!
//! Sockets with time-out 0, calls with flags that say how to wait, and whatever looks odd go to the
//! original.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const identity = @import("../host/identity.zig");
const replace = @import("../host/replace.zig");
const socket = @import("../types/socket.zig");
const ready = @import("ready.zig");
const steady = @import("steady.zig");

const lane = &host.the_lane;
const net = os.net;
const in = identity.inGoroutine;

/// PySocketSockObject of Modules/socketmodule.h, 3.11 to 3.15.
pub const Socket = extern struct {
    ob: py.Object,
    fd: c_int,
    family: c_int,
    type: c_int,
    proto: c_int,
    /// What raises OSError by errno; see steady.zig.
    errorhandler: ?*const anyopaque,
    /// ns, negative for none.
    timeout: i64,

    pub inline fn of(o: ?*py.Object) *Socket {
        return @ptrCast(@alignCast(o.?));
    }

    fn handle(s: *const Socket) os.Handle {
        return .of(s.fd);
    }
};

/// Whether a call on it would have the goroutine wait.
inline fn blocks(s: *const Socket) bool {
    return s.timeout != 0 and lane.here() != null;
}

/// What a call is still to wait: since when is not asked before it has to.
const Patience = struct {
    deadline: ?u64 = null,
    asked: bool = false,

    fn ask(p: *Patience, s: *const Socket) void {
        if (!p.asked) p.* = .{ .deadline = ready.deadlineOf(s.timeout), .asked = true };
    }
};

/// Why an attempt is not repeated; null: it is.
const Ended = enum { raised, original };

fn park(p: *Patience, s: *const Socket, of: ready.Directions) ?Ended {
    p.ask(s);
    return ended(ready.one(s.fd, of, p.deadline));
}

fn parkToReceive(p: *Patience, s: *Socket) ?Ended {
    p.ask(s);
    return ended(steady.wait(s, p.deadline));
}

fn ended(waited: ready.Waited) ?Ended {
    switch (waited) {
        .ready => return null,
        .raised => {},
        .timeout => _ = ready.timedOut(),
        .unwatched => return .original,
    }
    return .raised;
}

/// Receives until that succeeds or fails; parks before an attempt that would be in vain.
fn receive(s: *Socket, buffer: [*]u8, size: usize, flags: c_int) union(enum) {
    done: usize,
    raised,
    original,
} {
    var patience: Patience = .{};
    while (true) {
        const watched = steady.of(s);
        const may = if (watched) |d| d.take(&d.read) else true;
        if (may) switch (net.receive(s.handle(), buffer, size, flags)) {
            .done => |n| {
                if (watched) |d| steady.settle(d, n > 0 and n < size and flags == 0);
                return .{ .done = n };
            },
            .failed => |e| {
                if (watched) |d| steady.settle(d, false);
                _ = socket.osError(e);
                return .raised;
            },
            .again => if (watched) |d| d.refused(&d.read),
        };
        if (parkToReceive(&patience, s)) |how| return switch (how) {
            .raised => .raised,
            .original => .original,
        };
    }
}

/// The flags that were given, of those that do not say how to wait; null for others.
fn flagsIn(c: replace.Call, index: usize) ?c_int {
    if (c.n <= index) return 0;
    const flags = py.intIn(u31, c.args[index]) orelse return null;
    return if (flags & says_how_to_wait == 0) flags else null;
}

const says_how_to_wait: c_int = if (@import("builtin").os.tag == .linux)
    std.c.MSG.OOB | std.c.MSG.ERRQUEUE | std.c.MSG.DONTWAIT | std.c.MSG.WAITALL
else
    -1;

const Recv = replace.Replacement("_socket", "socket.recv", in, recv);

fn recv(c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    if (c.n < 1 or c.n > 2 or c.names != null or !blocks(s)) return Recv.callOriginal(c);
    const size = py.intIn(usize, c.args[0]) orelse return Recv.callOriginal(c);
    const flags = flagsIn(c, 1) orelse return Recv.callOriginal(c);
    if (size == 0 or size > socket.scratch.len) return whenReady(Recv, .{ .read = true }, c);
    return switch (receive(s, &socket.scratch, size, flags)) {
        .done => |n| py.PyBytes_FromStringAndSize(&socket.scratch, @intCast(n)),
        .raised => null,
        .original => Recv.callOriginal(c),
    };
}

const RecvInto = replace.Replacement("_socket", "socket.recv_into", in, recvInto);

fn recvInto(c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    if (c.n < 1 or c.n > 3 or c.names != null or !blocks(s)) return RecvInto.callOriginal(c);
    const flags = flagsIn(c, 2) orelse return RecvInto.callOriginal(c);
    const wanted = if (c.n > 1)
        py.intIn(usize, c.args[1]) orelse return RecvInto.callOriginal(c)
    else
        0;
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(c.args[0], &view, py.PyBUF_WRITABLE) != 0) {
        py.PyErr_Clear();
        return RecvInto.callOriginal(c);
    }
    defer py.PyBuffer_Release(&view);
    const bytes = socket.bytesOf(&view);
    const size = if (wanted == 0) bytes.len else wanted;
    if (size == 0 or size > bytes.len) return RecvInto.callOriginal(c);
    return switch (receive(s, bytes.ptr, size, flags)) {
        .done => |n| py.PyLong_FromLongLong(@intCast(n)),
        .raised => null,
        .original => RecvInto.callOriginal(c),
    };
}

const Send = replace.Replacement("_socket", "socket.send", in, send);
const SendAll = replace.Replacement("_socket", "socket.sendall", in, sendAll);

fn send(c: replace.Call) ?*py.Object {
    return transmit(Send, c, false);
}

fn sendAll(c: replace.Call) ?*py.Object {
    return transmit(SendAll, c, true);
}

fn transmit(comptime R: type, c: replace.Call, comptime all_of_it: bool) ?*py.Object {
    const s: *Socket = .of(c.self);
    if (c.n < 1 or c.n > 2 or c.names != null or !blocks(s)) return R.callOriginal(c);
    const flags = flagsIn(c, 1) orelse return R.callOriginal(c);
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(c.args[0], &view, py.PyBUF_SIMPLE) != 0) {
        py.PyErr_Clear();
        return R.callOriginal(c);
    }
    defer py.PyBuffer_Release(&view);
    const bytes = socket.bytesOf(&view);
    var sent: usize = 0;
    var patience: Patience = .{};
    while (true) {
        switch (net.transmitAsIs(s.handle(), bytes.ptr + sent, bytes.len - sent, flags)) {
            .done => |n| {
                sent += n;
                if (!all_of_it) return py.PyLong_FromLongLong(@intCast(n));
                if (sent == bytes.len) return py.returnNone();
            },
            .failed => |e| return socket.osError(e),
            .again => if (park(&patience, s, .{ .write = true })) |how| {
                if (how == .raised) return null;
                return theRest(R, c, &view, sent);
            },
        }
    }
}

/// Sends what is left in the original's way.
fn theRest(comptime R: type, c: replace.Call, view: *py.Buffer, sent: usize) ?*py.Object {
    if (sent == 0) return R.callOriginal(c);
    const bytes = socket.bytesOf(view)[sent..];
    const rest = py.PyBytes_FromStringAndSize(bytes.ptr, @intCast(bytes.len)) orelse return null;
    defer py.decref(rest);
    var args = [_]*py.Object{ rest, undefined };
    if (c.n > 1) args[1] = c.args[1];
    return R.callOriginal(.{ .self = c.self, .class = c.class, .args = &args, .n = c.n });
}

// ---- those that wait, and then call the original ----

fn whenReady(comptime R: type, of: ready.Directions, c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    var patience: Patience = .{};
    while (s.fd >= 0) {
        const is_ready = if (of.read) net.readable(s.handle()) else net.writable(s.handle());
        if (is_ready or !wouldWait(R, s, c)) break;
        const how = park(&patience, s, of) orelse continue;
        if (how == .raised) return null;
        break;
    }
    return R.callOriginal(c);
}

/// A closed one, which takes the place of those whose calls may be wrong.
var closed: ?*py.Object = null;

/// Whether the original waits, or says at once that something is wrong.
fn wouldWait(comptime R: type, s: *const Socket, c: replace.Call) bool {
    const listens = net.listens(s.handle());
    if (listens or R == Accept) return listens and R == Accept;
    if (hasBuffers(R)) {
        // An iterator gives them only once.
        const again = c.n > 0 and (py.isList(c.args[0]) or py.isTuple(c.args[0]));
        if (!again) return false;
    }
    const o = closed orelse return false;
    const stand_in: *Socket = .of(o);
    stand_in.family = s.family;
    stand_in.type = s.type;
    stand_in.proto = s.proto;
    const call: replace.Call = .{ .self = o, .class = c.class, .args = c.args, .n = c.n };
    if (R.callOriginal(call)) |result| {
        py.decref(result); // of what transfers nothing
        return false;
    }
    const is_right = py.PyErr_ExceptionMatches(py.exc.osError()) != 0;
    py.PyErr_Clear();
    return is_right;
}

fn hasBuffers(comptime R: type) bool {
    const path = R.entry.path;
    return std.mem.endsWith(u8, path, "recvmsg_into") or std.mem.endsWith(u8, path, "sendmsg");
}

const Accept = Waiting("_accept", .{ .read = true }, null).Replaced;

/// `flags` is the argument that has them, if any has.
fn Waiting(
    comptime name: [:0]const u8,
    comptime of: ready.Directions,
    comptime flags: ?usize,
) type {
    return struct {
        const Replaced = replace.Replacement("_socket", "socket." ++ name, in, call);

        fn call(c: replace.Call) ?*py.Object {
            const odd = c.names != null or if (flags) |i| flagsIn(c, i) == null else false;
            if (odd or !blocks(.of(c.self))) return Replaced.callOriginal(c);
            return whenReady(Replaced, of, c);
        }
    };
}

const SendTo = replace.Replacement("_socket", "socket.sendto", in, sendTo);

/// sendto(data, address) or sendto(data, flags, address)
fn sendTo(c: replace.Call) ?*py.Object {
    const odd = c.n == 3 and flagsIn(c, 1) == null;
    if (odd or c.names != null or !blocks(.of(c.self))) return SendTo.callOriginal(c);
    return whenReady(SendTo, .{ .write = true }, c);
}

// ---- connect() ----

const Connect = replace.Replacement("_socket", "socket.connect", in, connect);
const ConnectEx = replace.Replacement("_socket", "socket.connect_ex", in, connectEx);

fn connect(c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    if (!waitsToConnect(s)) return Connect.callOriginal(c);
    switch (begin(Connect, s, c)) {
        .raised => return null,
        .original => return Connect.callOriginal(c),
        .ended => |e| switch (e) {
            0 => return py.returnNone(),
            timed_out => return ready.timedOut(),
            else => return socket.osError(e),
        },
    }
}

fn connectEx(c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    if (!waitsToConnect(s)) return ConnectEx.callOriginal(c);
    return switch (begin(ConnectEx, s, c)) {
        .raised => null,
        .original => ConnectEx.callOriginal(c),
        .ended => |e| py.PyLong_FromLongLong(if (e == timed_out) errnoOf(.AGAIN) else e),
    };
}

inline fn waitsToConnect(s: *const Socket) bool {
    return s.type & 0xf == net.stream and s.fd >= 0 and blocks(s);
}

const timed_out = -1;

fn errnoOf(e: std.c.E) c_int {
    return @backingInt(e);
}

/// `ended`: errno, 0 for none, or `timed_out`.
fn begin(
    comptime R: type,
    s: *Socket,
    c: replace.Call,
) union(enum) { raised, original, ended: c_int } {
    const timeout = s.timeout;
    const deadline = ready.deadlineOf(timeout);
    const e = blk: {
        // The original does not wait either for one that has time-out 0.
        s.timeout = 0;
        defer s.timeout = timeout;
        if (timeout < 0) net.setBlocking(s.handle(), false);
        defer if (timeout < 0 and s.fd >= 0) net.setBlocking(s.handle(), true);
        break :blk errorOf(R.callOriginal(c)) orelse return .raised;
    };
    // One of the UNIX domain whose listener's queue is full has not begun.
    if (e == errnoOf(.AGAIN)) return .original;
    // The call of one without a time-out waits, also for what another has begun.
    const waits = e == errnoOf(.INPROGRESS) or e == errnoOf(.ALREADY) and timeout < 0;
    if (!waits) return .{ .ended = e };
    while (true) switch (ready.one(s.fd, .{ .write = true }, deadline)) {
        .raised => return .raised,
        .timeout => return .{ .ended = timed_out },
        .ready => {
            if (s.fd < 0) return .{ .ended = errnoOf(.BADF) };
            if (!net.writable(s.handle())) continue;
            const how = outcome(s, timeout);
            return .{ .ended = if (how == errnoOf(.ISCONN)) 0 else how };
        },
        .unwatched => {
            // It goes on by itself: to connect again would fail.
            net.waitWritable(s.handle(), timeout);
            return .{ .ended = outcome(s, timeout) };
        },
    };
}

/// Of a connection that has ended. The original leaves it for the next call to tell of, too, where
/// it has a time-out, and in no other case.
fn outcome(s: *const Socket, timeout: i64) c_int {
    return if (timeout < 0) net.endConnection(s.handle()) else net.pendingError(s.handle());
}

/// Of what connect() or connect_ex() gave, the errno, 0 for none. Null with an exception set: it is
/// no error of the system's.
fn errorOf(result: ?*py.Object) ?c_int {
    if (result) |value| {
        defer py.decref(value);
        return if (value == py.none()) 0 else @intCast(py.PyLong_AsLongLong(value));
    }
    if (py.PyErr_ExceptionMatches(py.exc.osError()) == 0) return null;
    const exception = py.takeException() orelse return null;
    if (errnoIn(exception)) |e| {
        py.decref(exception);
        return e;
    }
    py.restoreException(exception);
    return null;
}

/// Null if it has none that says what became of a connection.
fn errnoIn(exception: *py.Object) ?c_int {
    const value = py.PyObject_GetAttrString(exception, "errno") orelse {
        py.PyErr_Clear();
        return null;
    };
    defer py.decref(value);
    const e = py.intIn(c_int, value) orelse return null;
    const is_known = e == errnoOf(.INPROGRESS) or e == errnoOf(.ALREADY) or e == errnoOf(.AGAIN);
    return if (is_known) e else null;
}

// ---- close() ----

const Close = replace.Replacement("_socket", "socket.close", anythingWatched, close);

inline fn anythingWatched() bool {
    return lane.live and host.poller.wanted();
}

/// Those that wait for it find it closed.
fn close(c: replace.Call) ?*py.Object {
    const s: *Socket = .of(c.self);
    const here = py.PyInterpreterState_Get() == host.interpreter;
    if (here and s.fd >= 0) host.poller.loseRange(s.fd, s.fd +| 1);
    return Close.callOriginal(c);
}

pub const all = .{
    Recv,
    RecvInto,
    Send,
    SendAll,
    SendTo,
    Connect,
    ConnectEx,
    Close,
    Accept,
    Waiting("recvfrom", .{ .read = true }, 1).Replaced,
    Waiting("recvfrom_into", .{ .read = true }, 2).Replaced,
    Waiting("recvmsg", .{ .read = true }, 2).Replaced,
    Waiting("recvmsg_into", .{ .read = true }, 2).Replaced,
    Waiting("sendmsg", .{ .write = true }, 2).Replaced,
};

/// Looks at two. Null with an exception set.
pub fn layoutIsKnown() ?bool {
    const class = replace.classOf("_socket", "socket") orelse return null;
    defer py.decref(class);
    const o = py.call(class, &.{}) orelse return null;
    defer py.decref(o);
    const other = py.call(class, &.{}) orelse return null;
    defer py.decref(other);
    const fileno = number(o, "fileno") orelse return null;
    const family = number(o, "family") orelse return null;
    const kind = number(o, "type") orelse return null;
    const seconds = py.PyFloat_FromDouble(1234.5) orelse return null;
    defer py.decref(seconds);
    const settimeout = py.PyObject_GetAttrString(o, "settimeout") orelse return null;
    defer py.decref(settimeout);
    const s: *const Socket = .of(o);
    py.decref(py.call(settimeout, &.{seconds}) orelse return null);
    const known = s.fd == fileno and s.family == family and s.type == kind and s.proto == 0 and
        s.timeout == 1_234_500_000_000;
    if (known) steady.learn(s, .of(other));
    for ([_]*py.Object{ o, other }) |each| {
        const shut = py.PyObject_GetAttrString(each, "close") orelse return null;
        defer py.decref(shut);
        py.decref(py.call(shut, &.{}) orelse return null);
    }
    if (known and closed == null) {
        closed = py.incref(o);
        Socket.of(o).timeout = -1;
    }
    return known;
}

/// Of an attribute, or of what the method gives. Null with an exception set.
fn number(o: *py.Object, name: [*:0]const u8) ?i64 {
    const found = py.PyObject_GetAttrString(o, name) orelse return null;
    defer py.decref(found);
    if (py.isInt(found)) return py.PyLong_AsLongLong(found);
    const given = py.call(found, &.{}) orelse return null;
    defer py.decref(given);
    return py.PyLong_AsLongLong(given);
}
