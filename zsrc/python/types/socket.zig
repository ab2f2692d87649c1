//! golibx._core.Socket: a stream socket with operations that park the goroutine, not the thread.
//!
//! Each operation tries the system call, which never waits, and parks only when the kernel has
//! nothing. Calls keep the interpreter's lock: they copy at most a buffer. golibx/net.py builds
//! Conn and Listener on it.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const sockets = @import("../../netpoll/sockets.zig");
const g_mod = @import("../../serial/g.zig");
const chan_mod = @import("../../sync/chan.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const timeouts = @import("../timeouts.zig");
const select = @import("select.zig");
const info = @import("socket_info.zig");

const lane = &host.the_lane;
const net = os.net;

pub const Socket = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// Its own as long as `fd` is not none, in the run that the socket was made in.
    desc: ?*anyopaque,
    /// None when closed. The poller sets it when the program has closed the file by itself.
    fd: os.Handle,
    generation: u32,
    /// Seconds; negative for none.
    timeout: f64,

    inline fn d(s: *Socket) ?*sockets.Desc {
        if (s.fd == .none or s.generation != lane.generation or !lane.live) return null;
        return @ptrCast(@alignCast(s.desc));
    }

    // ---- for select() ----

    /// False with an exception set: it belongs to another run. One that is closed is fit for use.
    pub fn usable(s: *Socket) bool {
        return s.fd == .none or open(s) != null;
    }

    pub fn sideOf(s: *Socket, direction: Direction) *sockets.Side {
        const desc = s.d().?;
        return if (direction == .read) &desc.read else &desc.write;
    }

    /// Whether an operation would not wait now.
    pub fn readiness(s: *Socket, direction: Direction) chan_mod.Outcome {
        const desc = s.d() orelse return .closed;
        const side = s.sideOf(direction);
        if (!desc.take(side)) return .would_block;
        const is_ready = if (direction == .read) net.readable(s.fd) else net.writable(s.fd);
        if (is_ready) {
            host.poller.settle(desc, side, true);
            return .done;
        }
        desc.refused(side);
        return .would_block;
    }
};

fn new(t: *py.Type, fd: i64) ?*py.Object {
    const handle = os.Handle.ofNumber(fd) orelse
        return py.raise(py.exc.valueError(), "Socket() needs a descriptor, not {d}", .{fd});
    if (!lane.live) {
        errors.notInGoroutine();
        return null;
    }
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const s = Class.of(o);
    s.fd = .none;
    s.timeout = -1;
    s.generation = lane.generation;
    s.desc = host.poller.open(handle, &s.fd) catch |e| {
        py.decref(o);
        return cannotWatch(fd, e);
    };
    if (!net.isTcp(s.fd)) s.d().?.stops_short = true;
    return o;
}

pub fn cannotWatch(fd: i64, e: anyerror) ?*py.Object {
    const E = std.c.E;
    const number: E, const why: []const u8 = switch (e) {
        error.OutOfMemory => .{ .NOMEM, "out of memory" },
        error.SystemLimit => .{ .NOSPC, "fs.epoll.max_user_watches is reached" },
        error.NotPollable => .{ .PERM, "it is a file or folder, which is never waited for" },
        error.InUse => .{ .EXIST, "another socket of this run has it" },
        error.BadDescriptor => .{ .BADF, "it is not open" },
        else => .{ .OPNOTSUPP, "this platform has no poller yet" },
    };
    var buffer: [128]u8 = undefined;
    const text = std.fmt.bufPrintSentinel(
        &buffer,
        "cannot watch descriptor {d}: {s}",
        .{ fd, why },
        0,
    ) catch unreachable;
    return py.raiseOs(@backingInt(number), text);
}

fn shut(s: *Socket) void {
    if (s.fd == .none) return;
    if (s.d()) |d| host.poller.close(d);
    net.close(s.fd);
    s.fd = .none;
    s.desc = null;
}

pub fn osError(e: c_int) ?*py.Object {
    net.setErrno(e);
    return py.PyErr_SetFromErrno(py.exc.osError());
}

fn open(s: *Socket) ?*sockets.Desc {
    if (s.fd == .none) {
        _ = osError(net.bad_descriptor);
        return null;
    }
    return s.d() orelse {
        if (lane.live) {
            _ = py.raise(
                py.exc.runtimeError(),
                "this socket belongs to a golibx runtime that has ended",
                .{},
            );
        } else errors.notInGoroutine();
        return null;
    };
}

/// How long a call may wait: what settimeout() had said when it first had to.
const Patience = union(enum) { unasked, none, until: ?u64 };

fn patience(s: *Socket) ?Patience {
    if (s.timeout == 0) return .none;
    if (s.timeout < 0) return .{ .until = null };
    const limit = timeouts.fromSeconds(s.timeout) orelse return null;
    return .{ .until = limit.deadline() };
}

const Waited = enum {
    /// By an edge: one that tries has the mark now.
    woken,
    /// Others have run meanwhile: look again.
    in_vain,
    /// With an exception set.
    failed,
};

/// Parks until `side` may be tried again; `tries`: see Poller.park.
fn wait(
    s: *Socket,
    side: *sockets.Side,
    reason: g_mod.WaitReason,
    limit: *Patience,
    tries: bool,
) Waited {
    const p = goroutine.forPark() orelse return .failed;
    // Others may have run in there.
    if (side.ready or s.fd == .none) return .in_vain;
    if (limit.* == .unasked) limit.* = patience(s) orelse return .failed;
    const deadline = switch (limit.*) {
        .unasked => unreachable,
        .none => {
            _ = osError(@backingInt(std.c.E.AGAIN));
            return .failed;
        },
        .until => |time| time,
    };
    p.g.waiting_on = s;
    switch (host.poller.park(side, &p.g, reason, deadline, tries)) {
        .ready => return .woken,
        .closed => _ = osError(net.bad_descriptor),
        .timeout => _ = errors.raise(.DeadlineExceeded, "timed out", .{}),
        .interrupted => _ = goroutine.raisePending(p),
    }
    return .failed;
}

pub const Direction = enum { read, write };

/// Runs `call` until it gives a result. `leaves` tells by that whether the kernel may have more: if
/// not, the next attempt would be in vain until the poller reports an edge.
inline fn attempt(
    s: *Socket,
    comptime direction: Direction,
    limit: *Patience,
    context: anytype,
    comptime call: fn (@TypeOf(context), os.Handle) net.Result,
    comptime leaves: fn (@TypeOf(context), *const sockets.Desc, usize) bool,
) ?usize {
    var waited: Waited = .in_vain;
    while (true) {
        const d = open(s) orelse return null;
        const side = if (direction == .read) &d.read else &d.write;
        if (waited == .woken or d.take(side)) switch (call(context, s.fd)) {
            .done => |n| {
                host.poller.settle(d, side, leaves(context, d, n));
                return n;
            },
            .failed => |e| {
                host.poller.settle(d, side, true);
                _ = osError(e);
                return null;
            },
            .again => d.refused(side),
        };
        const reason: g_mod.WaitReason = if (direction == .read) .io_read else .io_write;
        waited = wait(s, side, reason, limit, true);
        if (waited == .failed) return null;
    }
}

const Span = struct {
    ptr: [*]u8,
    len: usize,
    flags: c_int = 0,

    fn receive(b: Span, fd: os.Handle) net.Result {
        return net.receive(fd, b.ptr, b.len, b.flags);
    }

    /// A stream that gave less than was asked for has no more.
    fn leavesData(b: Span, d: *const sockets.Desc, n: usize) bool {
        return n == b.len or n == 0 or b.flags != 0 or d.stops_short;
    }

    fn transmit(b: Span, fd: os.Handle) net.Result {
        return net.transmit(fd, b.ptr, b.len, b.flags);
    }

    /// A short count means that the socket's buffer is full.
    fn leavesRoom(b: Span, _: *const sockets.Desc, n: usize) bool {
        return n == b.len;
    }
};

/// One receive.
fn receive(s: *Socket, span: Span) ?usize {
    var limit: Patience = .unasked;
    if (span.len == 0) return if (open(s) == null) null else 0;
    if (span.flags & never_waits != 0) return receiveNow(s, span);
    if (span.flags & wait_all != 0) return receiveAll(s, span);
    return attempt(s, .read, &limit, span, Span.receive, Span.leavesData);
}

/// Out-of-band data and queued errors come with events of their own: a caller that asks for them is
/// told at once whether there are any, as by a socket that blocks.
const never_waits: c_int = if (builtin.os.tag == .linux)
    std.c.MSG.OOB | std.c.MSG.ERRQUEUE | std.c.MSG.DONTWAIT
else
    1; // MSG_OOB

const wait_all: c_int = switch (builtin.os.tag) {
    .linux => std.c.MSG.WAITALL,
    .windows => 8,
    else => 0x40,
};

/// Until nothing is missing, or the stream ends. If that fails, what has come until then is the
/// result, as it is the kernel's.
fn receiveAll(s: *Socket, span: Span) ?usize {
    var limit: Patience = .unasked;
    var got: usize = 0;
    while (got < span.len) {
        const rest: Span = .{
            .ptr = span.ptr + got,
            .len = span.len - got,
            .flags = span.flags & ~wait_all,
        };
        const n = attempt(s, .read, &limit, rest, Span.receive, Span.leavesData) orelse {
            if (got == 0 or py.PyErr_ExceptionMatches(py.exc.osError()) == 0) return null;
            py.PyErr_Clear();
            return got;
        };
        if (n == 0) break;
        got += n;
        if (rest.flags != 0) break; // to peek again would find the same
    }
    return got;
}

fn receiveNow(s: *Socket, span: Span) ?usize {
    if (open(s) == null) return null;
    switch (span.receive(s.fd)) {
        .done => |n| return n,
        .failed => |e| _ = osError(e),
        .again => _ = osError(@backingInt(std.c.E.AGAIN)),
    }
    return null;
}

/// Received bytes land here first, so that the bytes object has the right size at once. No attempt
/// gives the interpreter's lock away between the system call and the copy.
pub var scratch: [256 * 1024]u8 = undefined;

fn recv(s: *Socket, bufsize: *py.Object, flags_: i64) ?*py.Object {
    const size = py.PyNumber_AsSsize_t(bufsize, py.exc.overflowError());
    if (size == -1 and py.PyErr_Occurred() != null) return null;
    if (size < 0) return py.raise(py.exc.valueError(), "negative buffersize in recv: {d}", .{size});
    const flags: c_int = @truncate(flags_);
    // What comes in parts is collected where no other receives.
    if (size <= scratch.len and flags & wait_all == 0) {
        const got = receive(
            s,
            .{ .ptr = &scratch, .len = @intCast(size), .flags = flags },
        ) orelse return null;
        return py.PyBytes_FromStringAndSize(&scratch, @intCast(got));
    }
    var bytes = py.PyBytes_FromStringAndSize(null, size);
    const b = bytes orelse return null;
    const got = receive(
        s,
        .{ .ptr = py.PyBytes_AsString(b).?, .len = @intCast(size), .flags = flags },
    ) orelse {
        py.decref(b);
        return null;
    };
    if (py.extra._PyBytes_Resize(&bytes, @intCast(got)) != 0) return null;
    return bytes;
}

fn recvInto(s: *Socket, buffer: *py.Object, nbytes: ?*py.Object) ?usize {
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(buffer, &view, py.PyBUF_WRITABLE) != 0) return null;
    defer py.PyBuffer_Release(&view);
    var len: py.Ssize = 0;
    if (nbytes) |size| {
        len = py.PyNumber_AsSsize_t(size, py.exc.overflowError());
        if (len == -1 and py.PyErr_Occurred() != null) return null;
    }
    if (len < 0 or len > view.len) {
        const text = "nbytes must be between 0 and the buffer's {d} bytes, not {d}";
        _ = py.raise(py.exc.valueError(), text, .{ view.len, len });
        return null;
    }
    if (len == 0) len = view.len;
    return receive(s, .{ .ptr = bytesOf(&view).ptr, .len = @intCast(len) });
}

/// Exporters may have no address for nothing.
pub fn bytesOf(view: *const py.Buffer) []u8 {
    const buf = view.buf orelse return &.{};
    return buf[0..@intCast(view.len)];
}

fn transmit(s: *Socket, limit: *Patience, bytes: []u8) ?usize {
    if (bytes.len == 0) return transmitNothing(s);
    const span: Span = .{ .ptr = bytes.ptr, .len = bytes.len };
    return attempt(s, .write, limit, span, Span.transmit, Span.leavesRoom);
}

/// Says whether the socket is fit to send, and needs no room for that.
fn transmitNothing(s: *Socket) ?usize {
    if (open(s) == null) return null;
    switch (net.transmit(s.fd, &scratch, 0, 0)) {
        .done, .again => return 0,
        .failed => |e| _ = osError(e),
    }
    return null;
}

fn send(s: *Socket, data: *py.Object) ?usize {
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(data, &view, py.PyBUF_SIMPLE) != 0) return null;
    defer py.PyBuffer_Release(&view);
    var limit: Patience = .unasked;
    return transmit(s, &limit, bytesOf(&view));
}

fn sendall(s: *Socket, data: *py.Object) ?*py.Object {
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(data, &view, py.PyBUF_SIMPLE) != 0) return null;
    defer py.PyBuffer_Release(&view);
    var rest = bytesOf(&view);
    var limit: Patience = .unasked;
    while (true) {
        rest = rest[transmit(s, &limit, rest) orelse return null ..];
        if (rest.len == 0) return py.returnNone();
    }
}

fn acceptCall(address: *net.Address, fd: os.Handle) net.Result {
    return net.acceptOne(fd, address);
}

fn leavesConnections(_: *net.Address, _: *const sockets.Desc, _: usize) bool {
    return true;
}

/// (socket of that type, address): the caller has to close the socket.
fn accept(s: *Socket, socket_of: *py.Object) ?*py.Object {
    var address: net.Address = .{};
    var limit: Patience = .unasked;
    const got = attempt(s, .read, &limit, &address, acceptCall, leavesConnections);
    const fd: os.Handle = @fromBackingInt(got orelse return null);
    const accepted = adopted(socket_of, fd) orelse {
        net.close(fd);
        return null;
    };
    defer py.decref(accepted);
    net.noDelay(Class.of(accepted).fd);
    const where = info.addressOf(&address) orelse return null;
    defer py.decref(where);
    return py.PyTuple_Pack(2, accepted, where);
}

/// A socket of that type, which owns the descriptor then. Null with an exception set.
fn adopted(socket_of: *py.Object, fd: os.Handle) ?*py.Object {
    const number = py.PyLong_FromLongLong(fd.number()) orelse return null;
    defer py.decref(number);
    return py.call(socket_of, &.{number});
}

/// adopt_socket(): there is no moment in which both or none have the descriptor.
pub fn adopt(socket_of: *py.Object, plain: *py.Object) ?*py.Object {
    const base = py.importFrom("_socket", "socket") orelse return null;
    defer py.decref(base);
    // Those of the class in Python are functions in Python.
    const fileno_of = py.PyObject_GetAttrString(base, "fileno") orelse return null;
    defer py.decref(fileno_of);
    const detach_of = py.PyObject_GetAttrString(base, "detach") orelse return null;
    defer py.decref(detach_of);
    const number = py.call(fileno_of, &.{plain}) orelse return null;
    defer py.decref(number);
    const made = py.call(socket_of, &.{number}) orelse return null;
    py.decref(py.call(detach_of, &.{plain}) orelse {
        _ = forgetDescriptor(Class.of(made));
        py.decref(made);
        return null;
    });
    return made;
}

/// Parks until the socket is writable: for a connect under way.
fn waitWrite(s: *Socket, timeout: timeouts.Limit) ?*py.Object {
    var limit: Patience = .{ .until = timeout.deadline() };
    while (true) {
        const d = open(s) orelse return null;
        _ = d.take(&d.write);
        if (net.writable(s.fd)) {
            host.poller.settle(d, &d.write, true);
            return py.returnNone();
        }
        d.refused(&d.write);
        if (wait(s, &d.write, .io_write, &limit, false) == .failed) return null;
    }
}

fn onReadable(s: *Socket) ?*py.Object {
    return select.newCase(.readable, &s.ob, null, null);
}

fn onWritable(s: *Socket) ?*py.Object {
    return select.newCase(.writable, &s.ob, null, null);
}

fn detach(s: *Socket) i64 {
    return forgetDescriptor(s).number();
}

fn forgetDescriptor(s: *Socket) os.Handle {
    const fd = s.fd;
    if (s.d()) |d| host.poller.close(d);
    s.fd = .none;
    s.desc = null;
    return fd;
}

fn fileno(s: *Socket) i64 {
    return s.fd.number();
}

fn shutdown(s: *Socket, how: i64) ?*py.Object {
    if (s.fd == .none) return osError(net.bad_descriptor);
    return switch (net.shut(s.fd, @truncate(how))) {
        .failed => |e| osError(e),
        else => py.returnNone(),
    };
}

fn settimeout(s: *Socket, value: *py.Object) ?*py.Object {
    if (value == py.none()) {
        s.timeout = -1;
        return py.returnNone();
    }
    const seconds = py.PyFloat_AsDouble(value);
    if (seconds == -1.0 and py.PyErr_Occurred() != null) return null;
    if (std.math.isNan(seconds) or seconds < 0)
        return py.raise(py.exc.valueError(), "Timeout value out of range: {d}", .{seconds});
    s.timeout = seconds;
    return py.returnNone();
}

fn gettimeout(s: *Socket) ?*py.Object {
    if (s.timeout < 0) return py.returnNone();
    return py.PyFloat_FromDouble(s.timeout);
}

fn noDelay(s: *Socket) void {
    net.noDelay(s.fd);
}

fn isClosed(s: *Socket) bool {
    return s.fd == .none;
}

fn isUsable(s: *Socket) bool {
    return s.fd != .none and s.d() != null;
}

pub const Class = class.Class(Socket, .{
    .name = "golibx._core.Socket",
    .doc = "A stream socket of the runtime, which owns the descriptor from then on.",
    .new = class.constructor("Socket(fd, /)", new),
    .is_base = true,
    .is_immutable = false,
    .deinit = shut,
    .methods = &.{
        class.method("recv(bufsize, flags=0, /)", recv,
            \\Waits for data and returns at most bufsize bytes of it; b"" at the end of the stream.
        ),
        class.method("recv_into(buffer, nbytes=0)", recvInto,
            \\Waits for data and stores at most nbytes bytes (0: as many as fit); returns how many.
        ),
        class.method("send(data, /)", send,
            \\Sends some of data, waiting for room; returns how many bytes.
        ),
        class.method("sendall(data, /)", sendall,
            \\Sends all of data, waiting as often as it takes.
        ),
        class.method("accept(socket_of, /)", accept,
            \\Waits for a connection; returns (socket, address). The socket is of that type of
            \\sockets.
        ),
        class.method("getsockname()", info.ownName,
            \\The address of this end, as socket.getsockname().
        ),
        class.method("_getpeername()", info.peerName,
            \\The address of the other end, as socket.getpeername().
        ),
        class.method("getsockopt(level, option, buflen=0)", info.getOption,
            \\As socket.getsockopt().
        ),
        class.method("setsockopt(level, option, value, /)", info.setOption,
            \\As socket.setsockopt(), with an int or bytes.
        ),
        class.method("wait_write(timeout=None)", waitWrite,
            \\Waits until a connect under way has ended.
        ),
        class.method("on_readable()", onReadable,
            \\A case for select(): there is something to receive or to accept, or the end of the
            \\stream. Gives the socket; ok is False if it is closed.
        ),
        class.method("on_writable()", onWritable,
            \\A case for select(): there is room to send. Gives the socket; ok is False if it is
            \\closed.
        ),
        class.method("close()", shut,
            \\Closes the socket; goroutines that wait on it raise OSError (EBADF).
        ),
        class.method("detach()", detach,
            \\Forgets the socket without closing it; returns its descriptor.
        ),
        class.method("fileno()", fileno, "The descriptor, or -1 when closed."),
        class.method("shutdown(how, /)", shutdown,
            \\Ends one direction or both: socket.SHUT_RD, SHUT_WR, SHUT_RDWR.
        ),
        class.method("settimeout(seconds, /)", settimeout,
            \\The time that each later operation may take; None for any, 0 for none.
        ),
        class.method("gettimeout()", gettimeout, "The time-out in seconds, or None."),
        class.method("no_delay()", noDelay, "Sends small messages at once (TCP_NODELAY)."),
    },
    .properties = &.{
        class.property("_family", info.family, "The number of its address family."),
        class.property("closed", isClosed, "Whether the socket is closed."),
        class.property("usable", isUsable, "Whether it is open and belongs to the run of now."),
    },
});
