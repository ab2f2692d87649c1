//! The environment that models run in: the interface of `Real` in zsrc/os/env.zig, every operation
//! of which is a scheduling point, and what only models use.
const std = @import("std");
const os = @import("../os/os.zig");
const engine = @import("engine.zig");
const Clock = engine.Clock;
const Order = std.builtin.AtomicOrder;

inline fn eng() *engine.Engine {
    return &engine.the_engine;
}

pub const EnvOptions = struct {
    /// The bug that is planted in the code under test, which looks for it by
    /// `@hasDecl(Env, "planted") and Env.planted == .name`.
    planted: @EnumLiteral() = .none,
    local_queue_size: u32 = 4,
};

pub fn Env(comptime options: EnvOptions) type {
    return struct {
        pub const planted = options.planted;
        pub const local_queue_size = options.local_queue_size;
        pub const Atomic = SimAtomic;
        pub const Lock = SimLock;
        pub const Note = SimNote;
        pub const Thread = SimThread;
        pub const Rest = SimRest;

        /// The thread is not scheduled again before another made a step.
        pub fn spin() void {
            eng().spin();
        }

        pub fn nanotime() u64 {
            return eng().now;
        }

        pub const ticksInOrder = nanotime;

        pub fn reads(field: anytype) void {
            eng().access(@intFromPtr(field), false);
        }

        pub fn writes(field: anytype) void {
            eng().access(@intFromPtr(field), true);
        }

        pub fn fatal(comptime format: []const u8, args: anytype) noreturn {
            eng().failFormatted(format, args);
        }

        /// To the trace.
        pub fn writeStderr(text: []const u8) void {
            const e = eng();
            if (e.tracing) e.say("{s}", .{std.mem.trimEnd(u8, text, "\n")});
        }

        // What follows is for models.

        /// Moves the clock on.
        pub fn advance(ns: u64) void {
            eng().now += ns;
        }

        /// Any value below n: each is tried.
        pub fn choose(n: u32) u32 {
            const e = eng();
            const value = e.choose(n);
            if (e.tracing) e.say("chooses {d} of {d}", .{ value, n });
            return value;
        }

        /// Others may go first here.
        pub fn yieldPoint() void {
            eng().point(.{ .name = "yield point" });
        }

        /// The index of the running thread.
        pub fn self() u32 {
            return eng().current;
        }

        /// Blocks until `unpark`, which may come first.
        pub fn park() void {
            const e = eng();
            e.point(.{ .name = "park" });
            e.drain();
            const t = e.self();
            while (!t.unparked) _ = e.block(@intFromPtr(t), null);
            t.unparked = false;
            e.acquire(t.parking);
            if (e.tracing) e.say("leaves park", .{});
        }

        /// Twice without a park between is a failure.
        pub fn unpark(thread: u32) void {
            const e = eng();
            e.point(.{ .name = "unpark" });
            e.drain();
            const t = &e.threads[thread];
            if (e.tracing) e.say("unparks {s}", .{t.name});
            if (t.unparked) e.fail("a thread is unparked twice");
            t.unparked = true;
            t.parking = e.release();
            e.wake(@intFromPtr(t));
        }

        /// Starts a thread, which gets an index.
        pub fn spawn(
            thread_name: []const u8,
            comptime function: anytype,
            arg: @typeInfo(@TypeOf(function)).@"fn".param_types[0].?,
        ) u32 {
            const T = struct {
                fn entry(raw: ?*anyopaque) void {
                    function(@ptrCast(@alignCast(raw.?)));
                }
            };
            return eng().spawn(thread_name, T.entry, arg);
        }

        /// Sends a signal to a thread, which runs `handler` before its next operation, also when it
        /// waits. False if the thread has ended.
        pub fn signal(thread: u32, handler: engine.Handler, arg: ?*anyopaque) bool {
            const e = eng();
            e.point(.{ .name = "signal" });
            e.drain();
            if (e.tracing) e.say("signals {s}", .{e.threads[thread].name});
            return e.signal(@intCast(thread), handler, arg);
        }

        /// Memory that lasts as long as the execution.
        pub fn gpa() std.mem.Allocator {
            return eng().arena.allocator();
        }

        /// How the trace calls `*pointer`.
        pub fn name(pointer: anytype, as: []const u8) void {
            const e = eng();
            if (!e.tracing) return;
            e.names.append(e.gpa, .{
                .address = @intFromPtr(pointer),
                .size = @sizeOf(@TypeOf(pointer.*)),
                .name = as,
            }) catch {};
        }
    };
}

fn acquires(comptime order: Order) bool {
    return switch (order) {
        .acquire, .acq_rel, .seq_cst => true,
        else => false,
    };
}

fn releases(comptime order: Order) bool {
    return switch (order) {
        .release, .acq_rel, .seq_cst => true,
        else => false,
    };
}

pub fn SimAtomic(comptime T: type) type {
    return struct {
        raw: T,
        /// What is acquired with the value.
        sync: Clock = @splat(0),

        const Self = @This();
        pub const simulated = true;

        pub fn init(value: T) Self {
            return .{ .raw = value };
        }

        pub fn load(self: *const Self, comptime order: Order) T {
            const e = self.point("load");
            const value = self.buffered() orelse value: {
                if (acquires(order)) e.acquire(self.sync);
                break :value self.raw;
            };
            if (e.tracing) self.say("load ", "{s}", .{show(value, 0)});
            return value;
        }

        /// As the running thread sees it, which is no scheduling point: for the checks of models.
        pub fn peek(self: *const Self) T {
            return self.buffered() orelse self.raw;
        }

        /// What the running thread stored here itself and no other sees yet.
        fn buffered(self: *const Self) ?T {
            const e = eng();
            if (e.buffering & engine.bit(e.current) == 0) return null;
            const t = e.self();
            var i = t.stores_len;
            while (i > 0) {
                i -= 1;
                const s = &t.stores[i];
                if (@intFromPtr(s.to) != @intFromPtr(&self.raw)) continue;
                var value: T = undefined;
                @memcpy(std.mem.asBytes(&value), s.bytes[0..@sizeOf(T)]);
                return value;
            }
            return null;
        }

        pub fn store(self: *Self, value: T, comptime order: Order) void {
            const e = self.point("store");
            const clock: Clock = if (releases(order)) e.release() else @splat(0);
            if (order != .seq_cst and e.delayed()) {
                var s: engine.Store = .{
                    .len = @sizeOf(T),
                    .to = @ptrCast(&self.raw),
                    .sync = &self.sync,
                    .clock = clock,
                    .variable = @intFromPtr(self),
                };
                @memcpy(s.bytes[0..@sizeOf(T)], std.mem.asBytes(&value));
                e.buffer(s);
                if (e.tracing) self.say("store", "{s} (buffered)", .{show(value, 0)});
                return;
            }
            e.drain();
            if (e.tracing) self.sayChange("store", self.raw, value, "");
            self.raw = value;
            self.sync = clock;
        }

        pub fn swap(self: *Self, value: T, comptime order: Order) T {
            const e = self.point("swap");
            const before = self.raw;
            self.modify(e, value, order);
            if (e.tracing) self.sayChange("swap ", before, value, "");
            return before;
        }

        pub fn cmpxchgStrong(
            self: *Self,
            expected: T,
            value: T,
            comptime success: Order,
            comptime failure: Order,
        ) ?T {
            return self.cas(false, expected, value, success, failure);
        }

        pub fn cmpxchgWeak(
            self: *Self,
            expected: T,
            value: T,
            comptime success: Order,
            comptime failure: Order,
        ) ?T {
            return self.cas(true, expected, value, success, failure);
        }

        fn cas(
            self: *Self,
            comptime weak: bool,
            expected: T,
            value: T,
            comptime success: Order,
            comptime failure: Order,
        ) ?T {
            const e = self.point("cas");
            const before = self.raw;
            if (before != expected or
                (weak and e.happens(&e.weak_failures, e.limits.weak_failures)))
            {
                if (acquires(failure)) e.acquire(self.sync);
                if (e.tracing) self.say("cas  ", "{s}->{s} fails, is {s}", .{
                    show(expected, 0), show(value, 1), show(before, 2),
                });
                return before;
            }
            self.modify(e, value, success);
            if (e.tracing) self.sayChange("cas  ", before, value, " ok");
            return null;
        }

        pub fn fetchAdd(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("add", self.point("fetchAdd"), order, .Add, operand);
        }

        pub fn fetchSub(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("sub", self.point("fetchSub"), order, .Sub, operand);
        }

        pub fn fetchOr(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("or", self.point("fetchOr"), order, .Or, operand);
        }

        pub fn fetchAnd(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("and", self.point("fetchAnd"), order, .And, operand);
        }

        pub fn fetchXor(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("xor", self.point("fetchXor"), order, .Xor, operand);
        }

        pub fn fetchMax(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("max", self.point("fetchMax"), order, .Max, operand);
        }

        pub fn fetchMin(self: *Self, operand: T, comptime order: Order) T {
            return self.fetch("min", self.point("fetchMin"), order, .Min, operand);
        }

        fn fetch(
            self: *Self,
            comptime name: []const u8,
            e: *engine.Engine,
            comptime order: Order,
            comptime op: std.builtin.AtomicRmwOp,
            operand: T,
        ) T {
            const before = self.raw;
            self.modify(e, switch (op) {
                .Add => before +% operand,
                .Sub => before -% operand,
                .Or => before | operand,
                .And => before & operand,
                .Xor => before ^ operand,
                .Max => @max(before, operand),
                .Min => @min(before, operand),
                else => comptime unreachable,
            }, order);
            if (e.tracing) self.say(name ++ "  ", "{s}: {s}->{s}", .{
                show(operand, 0), show(before, 1), show(self.raw, 2),
            });
            return before;
        }

        /// One that is no release passes on what the value before it did.
        fn modify(self: *Self, e: *engine.Engine, value: T, comptime order: Order) void {
            const sync = self.sync;
            if (acquires(order)) e.acquire(sync);
            if (releases(order)) self.sync = engine.join(sync, e.release());
            self.raw = value;
        }

        inline fn point(self: *const Self, name: []const u8) *engine.Engine {
            const e = eng();
            e.point(.{ .name = name, .address = @intFromPtr(self), .size = @sizeOf(Self) });
            // A read-modify-write is a fence.
            if (name[0] != 'l' and !std.mem.eql(u8, name, "store")) e.drain();
            return e;
        }

        fn say(
            self: *const Self,
            comptime op: []const u8,
            comptime format: []const u8,
            args: anytype,
        ) void {
            var room: [80]u8 = undefined;
            const e = eng();
            const name = e.nameOf(@intFromPtr(self), @sizeOf(Self), &room);
            e.say(op ++ " {s} " ++ format, .{name} ++ args);
        }

        fn sayChange(
            self: *const Self,
            comptime op: []const u8,
            from: T,
            to: T,
            comptime result: []const u8,
        ) void {
            self.say(op, "{s}->{s}" ++ result, .{ show(from, 0), show(to, 1) });
        }

        /// A value for the trace. `which` tells it from the other values in the line.
        fn show(value: T, which: usize) []const u8 {
            const S = struct {
                var rooms: [3][80]u8 = undefined;
            };
            return showIn(&S.rooms[which], value);
        }

        fn showIn(room: []u8, value: T) []const u8 {
            switch (@typeInfo(T)) {
                .optional => if (value) |v| return SimAtomic(@TypeOf(v)).showIn(room, v),
                .pointer => {
                    const size = @sizeOf(@TypeOf(value.*));
                    return eng().nameOf(@intFromPtr(value), size, room);
                },
                else => return std.fmt.bufPrint(room, "{any}", .{value}) catch "?",
            }
            return "null";
        }
    };
}

pub const SimLock = struct {
    held: u8 = 0,
    sync: Clock = @splat(0),

    pub const simulated = true;

    pub fn lock(l: *SimLock) void {
        const e = eng();
        l.point("lock");
        e.drain();
        while (l.held != 0) _ = e.block(@intFromPtr(l), null);
        l.held = 1;
        e.acquire(l.sync);
        if (e.tracing) l.say("lock");
    }

    pub fn tryLock(l: *SimLock) bool {
        const e = eng();
        l.point("tryLock");
        e.drain();
        if (l.held != 0) {
            if (e.tracing) l.say("tryLock fails on");
            return false;
        }
        l.held = 1;
        e.acquire(l.sync);
        if (e.tracing) l.say("tryLock");
        return true;
    }

    /// By a store, which is no fence.
    pub fn unlock(l: *SimLock) void {
        const e = eng();
        l.point("unlock");
        if (l.held == 0) e.fail("a lock is let go that nobody holds");
        if (e.tracing) l.say("unlock");
        const clock = e.release();
        if (e.delayed()) {
            var s: engine.Store = .{
                .len = 1,
                .to = @ptrCast(&l.held),
                .sync = &l.sync,
                .clock = clock,
                .variable = @intFromPtr(l),
            };
            s.bytes[0] = 0;
            e.buffer(s);
            return;
        }
        l.held = 0;
        l.sync = clock;
        e.wake(@intFromPtr(l));
    }

    fn point(l: *SimLock, name: []const u8) void {
        eng().point(.{ .name = name, .address = @intFromPtr(l), .size = @sizeOf(SimLock) });
    }

    fn say(l: *SimLock, what: []const u8) void {
        var room: [80]u8 = undefined;
        const e = eng();
        e.say("{s} {s}", .{ what, e.nameOf(@intFromPtr(l), @sizeOf(SimLock), &room) });
    }
};

pub const SimNote = struct {
    word: SimAtomic(u32) = .init(0),

    pub fn clear(n: *SimNote) void {
        _ = n.word.swap(0, .seq_cst);
    }

    pub fn wake(n: *SimNote) void {
        if (n.word.swap(1, .release) == 0) eng().wake(@intFromPtr(n));
    }

    /// Looking at the word and going to sleep are one step, as the futex makes them.
    pub fn sleep(n: *SimNote, timeout_ns: ?u64) os.Wake {
        const e = eng();
        e.point(.{ .name = "sleep", .address = @intFromPtr(n), .size = @sizeOf(SimNote) });
        e.drain(); // a system call
        while (n.word.raw == 0) {
            for (e.threads[0..e.count]) |t| {
                if (t.waits == @intFromPtr(n)) e.fail("two threads sleep on one note");
            }
            if (e.block(@intFromPtr(n), timeout_ns) or n.word.raw != 0) continue;
            if (e.tracing) n.word.say("sleep", "times out", .{});
            return .timeout;
        }
        e.acquire(n.word.sync);
        if (e.tracing) n.word.say("sleep", "ends", .{});
        return .woken;
    }
};

/// Nobody spins for a while before it sleeps: that changes nothing but the time.
pub const SimRest = struct {
    pub fn spin(_: *SimRest, _: anytype, _: u64) bool {
        return false;
    }

    pub fn slept(_: *SimRest, _: u64, _: u64) void {}
    pub fn forget(_: *SimRest) void {}
};

/// A thread that can be waited for.
pub const SimThread = struct {
    started: *Started,

    const Started = struct {
        function: *const fn (?*anyopaque) void,
        arg: ?*anyopaque,
        ended: SimNote = .{},

        fn run(raw: ?*anyopaque) void {
            const s: *Started = @ptrCast(@alignCast(raw.?));
            s.function(s.arg);
            s.ended.wake();
        }
    };

    pub fn spawn(
        thread_name: []const u8,
        function: *const fn (?*anyopaque) void,
        arg: ?*anyopaque,
    ) SimThread {
        const s = eng().arena.allocator().create(Started) catch @panic("out of memory");
        s.* = .{ .function = function, .arg = arg };
        _ = eng().spawn(thread_name, Started.run, s);
        return .{ .started = s };
    }

    pub fn join(t: SimThread) void {
        while (t.started.ended.sleep(null) != .woken) {}
    }
};
