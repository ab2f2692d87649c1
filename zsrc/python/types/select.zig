//! golibx.Case and select(): sync/select.zig over all that Python code can wait for.
//! A Case says what to do with which object: receive from or send to a channel, of Python values or
//! of C ones, receive from a timer, see a goroutine end or a socket become ready. It is made once
//! and used by any number of selects. Each of them has a `Source` for it on its stack.
//!
//! All but the channels of C values need the interpreter's lock only. Those have locks of their
//! own, and others serve them at any time: select_native.zig holds the locks while the cases are
//! looked at and queued, and decides by a compare-and-swap between the two sides afterwards.
const std = @import("std");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const chan_mod = @import("../../sync/chan.zig");
const select_mod = @import("../../sync/select.zig");
const timechan = @import("../../sync/timechan.zig");
const sockets = @import("../../netpoll/sockets.zig");
const explore = @import("../../serial/explore.zig");
const py = @import("../py.zig");
const arguments = @import("../arguments.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const socket = @import("socket.zig");
const standin = @import("../host/standin.zig");
const native = @import("select_native.zig");
const timeouts = @import("../timeouts.zig");

const lane = &host.the_lane;
const G = g_mod.G;
const Wake = g_mod.Wake;
const Outcome = chan_mod.Outcome;
pub const Chan = chan_mod.Chan(host.Rt, *py.Object);
pub const TimeChan = timechan.TimeChan(host.Lane);

pub const Kind = enum(u8) { recv, send, time, done, readable, writable, native_recv, native_send };

pub const Case = extern struct {
    ob: py.Object,
    /// The object that the case is about, owned.
    owner: *py.Object,
    /// In it, where the pointer is good for as long as the owner lives; else null.
    inner: ?*anyopaque,
    /// What to send, owned: the value, or the bytes of the C value.
    value: ?*py.Object,
    kind: Kind,
};

/// A new case; null with an exception set.
pub fn newCase(kind: Kind, owner: *py.Object, in: ?*anyopaque, value: ?*py.Object) ?*py.Object {
    const made = py._PyObject_GC_New(Class.python_type) orelse return null;
    const case: *Case = @ptrCast(made);
    case.kind = kind;
    case.owner = py.incref(owner);
    case.inner = in;
    case.value = if (value) |v| py.incref(v) else null;
    py.PyObject_GC_Track(made);
    return made;
}

fn traverse(case: *Case, v: class.Visitor) c_int {
    return v.all(&.{ case.owner, case.value });
}

fn deinit(case: *Case) void {
    py.decref(case.owner);
    py.xdecref(case.value);
}

/// What a select with this case, or with None for one, waits on.
pub fn objectOf(case: *py.Object) *py.Object {
    return if (Class.is(case)) Class.of(case).owner else case;
}

// ---- what can be waited for ----

/// Each member's `result` is a new reference to what the caller of select() gets; null with an
/// exception set.
pub const Source = union(enum) {
    recv: Recv,
    send: Send,
    never: Never,
    time: Time,
    done: Done,
    io: Io,
    native: native.Source,

    pub inline fn poll(source: *Source, guard: *native.Guard) Outcome {
        return switch (source.*) {
            .native => |*s| s.poll(guard),
            inline else => |*s| s.poll(),
        };
    }
    pub inline fn enqueue(source: *Source, g: *G) void {
        switch (source.*) {
            inline else => |*s| s.enqueue(g),
        }
    }
    pub inline fn dequeue(source: *Source) void {
        switch (source.*) {
            inline else => |*s| s.dequeue(),
        }
    }
    pub inline fn finish(source: *Source, wake: Wake) Outcome {
        return switch (source.*) {
            inline else => |*s| s.finish(wake),
        };
    }
};

const S = select_mod.Select(host.Rt, Source, native.Guard);

/// A case of a nil channel, as Go would say: it never can go on.
const Never = struct {
    inline fn poll(_: *Never) Outcome {
        return .would_block;
    }
    inline fn enqueue(_: *Never, _: *G) void {}
    inline fn dequeue(_: *Never) void {}
    inline fn finish(_: *Never, _: Wake) Outcome {
        return .would_block;
    }
    fn result(_: *Never, _: Outcome, _: usize) ?*py.Object {
        return py.returnNone();
    }
};

const Recv = struct {
    chan: *Chan,
    value: *py.Object = undefined,
    waiter: Chan.Waiter = undefined,

    inline fn poll(r: *Recv) Outcome {
        return r.chan.now(.recv, &r.value);
    }
    inline fn enqueue(r: *Recv, g: *G) void {
        r.waiter = .{ .who = g, .data = &r.value };
        r.chan.enqueue(.recv, &r.waiter);
    }
    inline fn dequeue(r: *Recv) void {
        r.chan.withdraw(.recv, &r.waiter);
    }
    inline fn finish(_: *Recv, wake: Wake) Outcome {
        return chan_mod.outcomeOf(wake);
    }
    inline fn result(r: *Recv, outcome: Outcome, _: usize) ?*py.Object {
        return if (outcome == .closed) py.returnNone() else r.value;
    }
};

const Send = struct {
    chan: *Chan,
    /// The Case has a reference. A receiver of the value takes one along.
    value: *py.Object,
    waiter: Chan.Waiter = undefined,

    inline fn poll(s: *Send) Outcome {
        const outcome = s.chan.now(.send, &s.value);
        if (outcome == .done) _ = py.incref(s.value);
        return outcome;
    }
    inline fn enqueue(s: *Send, g: *G) void {
        _ = py.incref(s.value);
        s.waiter = .{ .who = g, .data = &s.value };
        s.chan.enqueue(.send, &s.waiter);
    }
    inline fn dequeue(s: *Send) void {
        s.chan.withdraw(.send, &s.waiter);
        py.decref(s.value);
    }
    inline fn finish(s: *Send, wake: Wake) Outcome {
        if (wake != .ready) py.decref(s.value);
        return chan_mod.outcomeOf(wake);
    }
    inline fn result(_: *Send, outcome: Outcome, index: usize) ?*py.Object {
        return if (outcome == .closed) sentOnClosed(index) else py.returnNone();
    }
};

pub fn sentOnClosed(index: usize) ?*py.Object {
    return errors.raise(.ChannelClosed, "send on a closed channel (select case {d})", .{index});
}

const Time = struct {
    chan: *TimeChan,
    when: u64 = undefined,
    waiter: TimeChan.W = undefined,

    pub inline fn poll(t: *Time) Outcome {
        t.when = t.chan.poll(lane) orelse return .would_block;
        return .done;
    }
    pub inline fn enqueue(t: *Time, g: *G) void {
        t.waiter = .{ .who = g };
        t.chan.enqueue(lane, &t.waiter);
    }
    pub inline fn dequeue(t: *Time) void {
        t.chan.dequeue(lane, &t.waiter);
    }
    pub inline fn finish(t: *Time, _: Wake) Outcome {
        t.when = t.waiter.data;
        return .done;
    }
    fn result(t: *Time, _: Outcome, _: usize) ?*py.Object {
        return secondsOf(t.when);
    }
};

/// What a timer's channel gives: seconds of time.monotonic().
pub fn secondsOf(ns: u64) ?*py.Object {
    return py.PyFloat_FromDouble(@as(f64, @floatFromInt(ns)) / 1e9);
}

/// The end of a goroutine.
const Done = struct {
    handle: *goroutine.Handle,
    waiter: host.Queue.Waiter = undefined,

    pub inline fn poll(d: *Done) Outcome {
        return if (d.handle.live == null) .done else .would_block;
    }
    pub inline fn enqueue(d: *Done, g: *G) void {
        d.waiter = .{ .who = g };
        d.handle.waiters().push(&d.waiter);
    }
    pub inline fn dequeue(d: *Done) void {
        d.handle.waiters().remove(&d.waiter);
    }
    pub inline fn finish(_: *Done, _: Wake) Outcome {
        return .done;
    }
    fn result(d: *Done, _: Outcome, _: usize) ?*py.Object {
        return py.incref(&d.handle.ob);
    }
};

/// A direction of a socket.
const Io = struct {
    socket: *socket.Socket,
    direction: socket.Direction,
    waiter: sockets.Waiter = undefined,
    side: *sockets.Side = undefined,

    pub fn poll(io: *Io) Outcome {
        return io.socket.readiness(io.direction);
    }
    pub fn enqueue(io: *Io, g: *G) void {
        io.waiter = .{ .wait = g, .tries = false };
        io.side = io.socket.sideOf(io.direction);
        host.poller.link(io.side, &io.waiter);
    }
    pub fn dequeue(io: *Io) void {
        host.poller.unlink(io.side, &io.waiter, false);
    }
    pub fn finish(io: *Io, wake: Wake) Outcome {
        host.poller.unlink(io.side, &io.waiter, true);
        // Another may have been quicker since.
        return if (wake == .closed) .closed else io.poll();
    }
    fn result(io: *Io, _: Outcome, _: usize) ?*py.Object {
        return py.incref(&io.socket.ob);
    }
};

// ---- select() ----

const few_cases = 16;
const most_cases = std.math.maxInt(u16);

/// A xorshift generator (Marsaglia 2003): select must be fair, not secret.
var random_state: u64 = 0x9e3779b97f4a7c15;
/// In an explored run the lane's chooser says what is taken: select asks how many cases are ready.
var chosen = false;

pub fn seed(value: u64, explored: bool) void {
    chosen = explored;
    var mixed: explore.Chance = .init(value);
    random_state = if (value != 0) mixed.next() | 1 else os.nanotime() | 1;
}

pub fn endRun() void {
    chosen = false;
}

inline fn random() u64 {
    var x = random_state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random_state = x;
    return x;
}

/// Numbers for the places of a few cases, each below one more than the number of cases before it.
/// 16 bits decide on each.
const Places = struct {
    bits: u64 = 0,
    left: u32 = 0,

    inline fn next(places: *Places, before: usize) usize {
        if (before == 0) return 0;
        if (before >= few_cases) return @intCast((random() >> 32) * (before + 1) >> 32);
        if (places.left == 0) places.* = .{ .bits = random(), .left = 4 };
        places.left -= 1;
        const number: u16 = @truncate(places.bits);
        places.bits >>= 16;
        return @as(usize, number) * (before + 1) >> 16;
    }
};

/// Puts one of those that can go on before all others, which keep their order.
noinline fn chooseFirst(sources: []Source, order: []u16) void {
    var ready: usize = 0;
    for (sources) |*source| ready += @intFromBool(isReady(source));
    var left = lane.chooser.which(.case, ready);
    const first = for (sources, 0..) |*source, i| {
        if (!isReady(source)) continue;
        if (left == 0) break i;
        left -= 1;
    } else return;
    for (order[0 .. first + 1], 0..) |*place, i| place.* = @intCast(if (i == 0) first else i - 1);
}

/// Whether it may be that it can go on: the waiter at its other end may have been claimed already.
fn isReady(source: *Source) bool {
    return switch (source.*) {
        .recv => |s| s.chan.may(.recv),
        .send => |s| s.chan.may(.send),
        .time => |s| s.chan.isDue(lane),
        .done => |s| s.handle.live == null,
        .io => |*s| s.poll() != .would_block,
        .native => true,
        .never => false,
    };
}

/// False with an exception set.
inline fn sourceOf(arg: *py.Object, source: *Source, index: usize, guard: *native.Guard) bool {
    if (Class.is(arg)) {
        const case = Class.of(arg);
        const in: *anyopaque = case.inner orelse undefined;
        if (case.kind == .recv) {
            source.* = .{ .recv = .{ .chan = @ptrCast(@alignCast(in)) } };
            return true;
        }
        if (case.kind == .send) {
            source.* = .{ .send = .{ .chan = @ptrCast(@alignCast(in)), .value = case.value.? } };
            return true;
        }
        return otherSource(case, source, index, guard);
    }
    if (arg != py.none()) {
        _ = py.PyErr_Format(
            py.exc.typeError(),
            "case %zd of select must come from a method such as on_recv(), or be None, not %R",
            index,
            arg,
        );
        return false;
    }
    source.* = .{ .never = .{} };
    return true;
}

noinline fn otherSource(case: *Case, source: *Source, index: usize, guard: *native.Guard) bool {
    switch (case.kind) {
        .recv, .send => unreachable,
        .time => {
            guard.timers += 1;
            source.* = .{ .time = .{ .chan = @ptrCast(@alignCast(case.inner.?)) } };
        },
        .done => source.* = .{ .done = .{ .handle = @ptrCast(case.owner) } },
        .readable, .writable => {
            const s: *socket.Socket = @ptrCast(case.owner);
            if (!s.usable()) return false;
            source.* = .{ .io = .{
                .socket = s,
                .direction = if (case.kind == .readable) .read else .write,
            } };
        },
        .native_recv, .native_send => {
            const state = guard.add(case, index) orelse return false;
            source.* = .{ .native = .{ .state = state } };
        },
    }
    return true;
}

pub const definition = class.moduleFunction("select(*cases, default=False, timeout=None)", select,
    \\Waits until one of the cases can go on, and does it; a random one if several can. A case comes
    \\from a method such as Chan.on_recv(), Goroutine.on_done() or Conn.on_readable(); None never
    \\can. Returns (index, value, ok): ok is False when a channel or socket was closed. With
    \\default, returns (-1, None, False) instead of waiting. Raises DeadlineExceeded when timeout
    \\seconds are over, and ChannelClosed for a send on a closed channel.
);

const options: arguments.Signature = .of("select(default=False, timeout=None)");

fn select(given: arguments.Given) ?*py.Object {
    const args = given.args;
    const count = given.n;
    var default = false;
    var limit: timeouts.Limit = .forever;
    if (given.names != null) {
        const named = arguments.parse(options, args + count, 0, given.names) orelse return null;
        if (named[0]) |d| {
            const truth = py.PyObject_IsTrue(d);
            if (truth < 0) return null;
            default = truth != 0;
        }
        limit = timeouts.parse(named[1]) orelse return null;
    }
    if (count <= few_cases) {
        var sources: [few_cases]Source = undefined;
        var order: [few_cases]u16 = undefined;
        return selectFrom(args[0..count], sources[0..count], order[0..count], default, limit);
    }
    if (count > most_cases)
        return py.raise(
            py.exc.valueError(),
            "select takes at most {d} cases, not {d}",
            .{ most_cases, count },
        );
    const sources = host.gpa.alloc(Source, count) catch return py.PyErr_NoMemory();
    defer host.gpa.free(sources);
    const order = host.gpa.alloc(u16, count) catch return py.PyErr_NoMemory();
    defer host.gpa.free(order);
    return selectFrom(args[0..count], sources, order, default, limit);
}

inline fn selectFrom(
    args: []const *py.Object,
    sources: []Source,
    order: []u16,
    default: bool,
    limit: timeouts.Limit,
) ?*py.Object {
    var guard: native.Guard = .{ .sources = sources.ptr };
    if (args.len > 0) guard.waitsOn(@ptrCast(args.ptr), @intCast(args.len));
    defer guard.deinit();
    var places: Places = .{};
    for (args, sources, order, 0..) |arg, *source, *place, i| {
        if (!sourceOf(arg, source, i, &guard)) return null;
        const j = if (chosen) i else places.next(i);
        place.* = order[j];
        order[j] = @intCast(i);
    }
    if (chosen) chooseFirst(sources, order);
    var p: *goroutine.PyG = undefined;
    const selected = S.poll(sources, order, &guard) orelse wait: {
        if (default) return triple(-1, py.returnNone(), false);
        p = goroutine.forWait() orelse return null;
        if (standin.is(p)) {
            if (!forThread(sources)) return null;
            standin.selects(p, sources);
        }
        if (limit == .poll) {
            // Others may have run in there: the first answer is no longer true.
            break :wait S.poll(sources, order, &guard) orelse return failed(.timeout, p);
        }
        const reason: g_mod.WaitReason = if (sources.len == 0) .select_no_cases else .select;
        break :wait S.wait(&p.g, sources, order, &guard, reason, limit.deadline());
    };
    if (selected.outcome == .timeout or selected.outcome == .interrupted)
        return failed(selected.outcome, p);
    const index = selected.index;
    const value = switch (sources[index]) {
        inline else => |*source| source.result(selected.outcome, index),
    } orelse return null;
    return triple(@intCast(index), value, selected.outcome == .done);
}

/// Whether a thread may wait for them: sockets belong to the run's poller. If not, with an
/// exception set.
noinline fn forThread(sources: []const Source) bool {
    for (sources, 0..) |source, i| if (source == .io) {
        _ = py.raise(py.exc.runtimeError(), "select case {d} is of a socket, for which only " ++
            "goroutines can wait: have one started with go() do this", .{i});
        return false;
    };
    return true;
}

fn failed(outcome: Outcome, p: *goroutine.PyG) ?*py.Object {
    if (outcome == .timeout) return errors.raise(.DeadlineExceeded, "select timed out", .{});
    if (!goroutine.raisePending(p)) _ = py.PyErr_NoMemory();
    return null;
}

/// Takes the reference to `value`.
fn triple(index: i64, value: *py.Object, ok: bool) ?*py.Object {
    defer py.decref(value);
    const number = py.PyLong_FromLongLong(index) orelse return null;
    defer py.decref(number);
    const flag = py.boolean(ok);
    defer py.decref(flag);
    return py.PyTuple_Pack(3, number, value, flag);
}

/// Receives from one timer channel, which `o` is, for its own methods. Null without an exception
/// after a time-out.
pub fn receiveTime(o: *py.Object, c: *TimeChan, limit: timeouts.Limit) ?u64 {
    if (c.poll(lane)) |when| return when;
    const p = goroutine.forWait() orelse return null;
    var sources: [1]Source = .{.{ .time = .{ .chan = c } }};
    var guard: native.Guard = .{ .sources = &sources, .timers = 1 };
    guard.waitsOn(o, 0);
    if (limit == .poll) return c.poll(lane);
    const selected = S.wait(&p.g, &sources, &.{0}, &guard, .chan_receive, limit.deadline());
    switch (selected.outcome) {
        .done => return sources[0].time.when,
        .timeout => {},
        else => _ = failed(.interrupted, p),
    }
    return null;
}

pub const Class = class.Class(Case, .{
    .name = "golibx.Case",
    .doc = "A case of select(), made by the methods named on_…() of what can be waited for.",
    .traverse = traverse,
    .deinit = deinit,
});
