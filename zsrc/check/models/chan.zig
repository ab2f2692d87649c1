//! Channels and select: a value goes to one receiver or stays the sender's, whatever ends the wait.
const std = @import("std");
const check = @import("../explorer.zig");
const threads_mod = @import("threads.zig");
const chan = @import("../../sync/chan.zig");
const select_mod = @import("../../sync/select.zig");

/// The operations as golibx.h's functions make them.
fn Ops(comptime Sim: type) type {
    return struct {
        const Rt = threads_mod.Rt(Sim);
        const Chan = chan.Chan(Rt, null);
        const Case = Chan.Case;
        const Locks = select_mod.Locks(Rt, Case);
        const Select = select_mod.Select(Rt, Case, Locks);
        const Result = chan.Outcome;

        fn make(gpa: std.mem.Allocator, capacity: usize) !Chan {
            const memory = try gpa.alloc(u8, 8 * @max(capacity, 1));
            return .{ .elem_size = 8, .capacity = capacity, .buffer = memory.ptr };
        }

        fn bytes(value: *u64) [*]u8 {
            return @ptrCast(value);
        }

        fn send(c: *Chan, value: *u64, deadline: ?u64) Result {
            Sim.writes(value);
            return c.transfer(.send, bytes(value), null, deadline);
        }

        fn recv(c: *Chan, value: *u64, deadline: ?u64) Result {
            const result = c.transfer(.recv, bytes(value), null, deadline);
            Sim.reads(value);
            return result;
        }

        fn case(c: *Chan, side: chan.Side, value: *u64) Case {
            return .{ .chan = c, .side = side, .elem = bytes(value) };
        }

        const Chosen = struct { case: usize = 99, result: Result };

        fn select(comptime n: usize, cases: [n]Case, deadline: ?u64) Chosen {
            // Not on the stack, so that a bug that touches it later is told in an orderly way.
            const own = Sim.gpa().create(struct {
                cases: [n]Case,
                look: [n]u16 = undefined,
                lock: [n]u16 = undefined,
            }) catch unreachable;
            own.* = .{ .cases = cases };
            select_mod.shuffle(&own.look, Random{});
            var locks: Locks = .{ .cases = &own.cases, .order = &own.lock };
            const s = Select.wait(null, &own.cases, &own.look, &locks, .select, deadline);
            return .{ .case = s.index, .result = s.outcome };
        }

        const Random = struct {
            pub fn random(_: Random, below: u32) u32 {
                return Sim.choose(below);
            }
        };
    };
}

/// Two senders, one of them of two values, and a receiver of them all.
fn Values(comptime Sim: type, comptime capacity: usize) type {
    return struct {
        c: Op.Chan = undefined,
        values: [3]u64 = .{ 1, 2, 3 },

        const Self = @This();
        const Op = Ops(Sim);
        pub const threads = .{ .{ "two", two }, .{ "one", one }, .{ "receiver", receive } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.c = try Op.make(gpa, capacity);
        }

        fn two(m: *Self) void {
            check.expect(Op.send(&m.c, &m.values[0], null) == .done, "it is sent");
            check.expect(Op.send(&m.c, &m.values[1], null) == .done, "it is sent");
        }

        fn one(m: *Self) void {
            check.expect(Op.send(&m.c, &m.values[2], null) == .done, "it is sent");
        }

        fn receive(m: *Self) void {
            var seen: [4]bool = @splat(false);
            for (0..3) |_| {
                var value: u64 = 0;
                check.expect(Op.recv(&m.c, &value, null) == .done, "one is received");
                check.expect(value >= 1 and value <= 3, "a value arrives that nobody sent");
                check.expect(!seen[value], "a value arrives twice");
                check.expect(value != 2 or seen[1], "values overtake each other");
                seen[value] = true;
            }
        }
    };
}

pub fn Unbuffered(comptime Sim: type) type {
    return Values(Sim, 0);
}

pub fn Buffered(comptime Sim: type) type {
    return Values(Sim, 1);
}

/// A sender and a receiver with deadlines, and one that closes; the receiver gives up or goes on.
fn Ends(comptime Sim: type, comptime capacity: usize, comptime drains: bool) type {
    return struct {
        c: Op.Chan = undefined,
        sent: [2]u64 = .{ 1, 2 },
        ok: [2]Op.Result = .{ .closed, .closed },
        got: [3]bool = @splat(false),

        const Self = @This();
        const Op = Ops(Sim);
        pub const threads = .{
            .{ "sender", send }, .{ "receiver", receive }, .{ "closer", close },
        };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.c = try Op.make(gpa, capacity);
        }

        fn send(m: *Self) void {
            m.ok[0] = Op.send(&m.c, &m.sent[0], 5);
            m.ok[1] = Op.send(&m.c, &m.sent[1], null);
            for (&m.sent, 1..) |*value, i| {
                Sim.reads(value);
                check.expect(value.* == i, "a value that was not sent stays the sender's");
            }
        }

        fn receive(m: *Self) void {
            var value: u64 = 7;
            if (m.take(Op.recv(&m.c, &value, 6), value)) return;
            if (drains) {
                while (!m.take(Op.recv(&m.c, &value, null), value)) {}
            }
        }

        /// True at the end.
        fn take(m: *Self, result: Op.Result, value: u64) bool {
            switch (result) {
                .done => {
                    check.expect(value == 1 or value == 2, "a value arrives that nobody sent");
                    check.expect(!m.got[value], "a value arrives twice");
                    m.got[value] = true;
                },
                .closed => check.expect(value == 0, "closed is zero"),
                .timeout => {},
                .would_block, .interrupted => check.fail("it ends as it cannot", .{}),
            }
            return result == .closed;
        }

        fn close(m: *Self) void {
            check.expect(m.c.close(), "it is closed once");
            check.expect(!m.c.close(), "it is closed once");
        }

        pub fn end(m: *Self) void {
            for (m.ok, m.got[1..]) |ok, got|
                check.expect((ok == .done) == got, "what is sent is received, nothing else");
            check.expect(m.c.senders.isEmpty() and m.c.receivers.isEmpty(), "none is queued");
        }
    };
}

pub fn EndsUnbuffered(comptime Sim: type) type {
    return Ends(Sim, 0, true);
}

pub fn EndsGivenUp(comptime Sim: type) type {
    return Ends(Sim, 0, false);
}

pub fn EndsBuffered(comptime Sim: type) type {
    return Ends(Sim, 1, true);
}

/// Two selects on the same two channels, named in opposite order: one receives, one sends, twice.
pub fn SelectCrossed(comptime Sim: type) type {
    return struct {
        c: [2]Op.Chan = undefined,
        values: [2]u64 = .{ 1, 2 },

        const Self = @This();
        const Op = Ops(Sim);
        pub const threads = .{ .{ "sender", send }, .{ "receiver", receive } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            for (&m.c) |*each| each.* = try Op.make(gpa, 0);
        }

        fn sends(m: *Self, i: usize) Op.Case {
            Sim.writes(&m.values[i]);
            return Op.case(&m.c[i], .send, &m.values[i]);
        }

        fn send(m: *Self) void {
            const first = Op.select(2, .{ m.sends(1), m.sends(0) }, null);
            check.expect(first.result == .done, "nobody closes");
            // Then the one that is left.
            _ = Op.select(1, .{m.sends(if (first.case == 0) 0 else 1)}, null);
        }

        fn receive(m: *Self) void {
            var got: [2]u64 = @splat(0);
            for (0..2) |_| {
                var in: [2]u64 = @splat(0);
                const chosen = Op.select(2, .{
                    Op.case(&m.c[0], .recv, &in[0]),
                    Op.case(&m.c[1], .recv, &in[1]),
                }, null);
                check.expect(in[1 - chosen.case] == 0, "one case is served");
                got[chosen.case] += in[chosen.case];
            }
            check.expect(got[0] == 1 and got[1] == 2, "each value arrives once");
        }

        pub fn end(m: *Self) void {
            for (&m.c) |*each|
                check.expect(each.senders.isEmpty() and each.receivers.isEmpty(), "queued");
        }
    };
}

/// Each sends on one channel or receives from the other, which comes twice, or gives up: one value
/// goes one way, or none. A third one may close a channel.
fn Exchange(comptime Sim: type, comptime closes: bool) type {
    return struct {
        c: [2]Op.Chan = undefined,
        out: [2]u64 = .{ 11, 22 },
        in: [2][2]u64 = @splat(@splat(0)),
        chosen: [2]Op.Chosen = undefined,

        const Self = @This();
        const Op = Ops(Sim);
        pub const threads = if (closes)
            .{ .{ "left", left }, .{ "right", right }, .{ "closer", close } }
        else
            .{ .{ "left", left }, .{ "right", right } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            for (&m.c) |*each| each.* = try Op.make(gpa, 0);
        }

        fn left(m: *Self) void {
            m.exchange(0);
        }

        fn right(m: *Self) void {
            m.exchange(1);
        }

        fn exchange(m: *Self, comptime me: usize) void {
            const other = &m.c[1 - me];
            Sim.writes(&m.out[me]);
            const cases = [_]Op.Case{
                Op.case(&m.c[me], .send, &m.out[me]),
                Op.case(other, .recv, &m.in[me][0]),
                Op.case(other, .recv, &m.in[me][1]),
            };
            // Closing ends the wait; the time does otherwise.
            m.chosen[me] = if (closes)
                Op.select(2, cases[0..2].*, null)
            else
                Op.select(3, cases, 5 + me);
        }

        fn close(m: *Self) void {
            _ = m.c[0].close();
            _ = m.c[1].close();
        }

        pub fn end(m: *Self) void {
            const sum = m.in[0][0] + m.in[0][1] + m.in[1][0] + m.in[1][1];
            const a, const b = .{ m.chosen[0], m.chosen[1] };
            if (a.result != .done or b.result != .done) {
                check.expect(a.result != .done and b.result != .done, "both agree");
                return check.expect(sum == 0, "a value arrives that was not sent");
            }
            check.expect((a.case == 0) != (b.case == 0), "one sends");
            check.expect(sum == if (a.case == 0) m.out[0] else m.out[1], "one value goes one way");
            const in = if (a.case == 0) m.in[1][b.case - 1] else m.in[0][a.case - 1];
            check.expect(in == sum, "it arrives in the case that was chosen");
        }
    };
}

pub fn SelectDeadline(comptime Sim: type) type {
    return Exchange(Sim, false);
}

pub fn SelectClose(comptime Sim: type) type {
    return Exchange(Sim, true);
}

/// As golibx.select() does over channels of both lanes: one goroutine is queued on a native
/// channel, whose sender comes from another thread, and for something of the Python lane, under
/// that lane's lock. Whoever wants to end the wait changes the one word first; one case happens.
pub fn SelectMixed(comptime Sim: type) type {
    return struct {
        c: Op.Chan = undefined,
        lane_lock: Sim.Lock = .{},
        out: u64 = 7,
        in: u64 = 0,
        /// The waiter of the lane's side, null once it has left; and what it was given.
        waiter: ?Op.Rt.Blocker = null,
        given: bool = false,
        over: bool = false,
        sent: Op.Result = .closed,

        const Self = @This();
        const Op = Ops(Sim);
        pub const threads = .{
            .{ "select", select },
            .{ "native", native },
            .{ "python", python },
        };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.c = try Op.make(gpa, 0);
        }

        fn select(m: *Self) void {
            var b: Op.Rt.Blocker = undefined;
            b.init(null, true);
            var w: Op.Chan.Waiter = .{ .who = b.who(), .data = Op.bytes(&m.in) };
            m.lane_lock.lock();
            switch (m.c.begin(.recv, Op.bytes(&m.in), &w)) {
                .would_block => {},
                else => {
                    m.over = true;
                    return m.lane_lock.unlock();
                },
            }
            Sim.writes(&m.waiter);
            m.waiter = b;
            m.c.lock.unlock();
            m.lane_lock.unlock();
            _ = b.sleep(null);
            m.lane_lock.lock();
            Sim.writes(&m.waiter);
            m.waiter = null;
            m.over = true;
            m.lane_lock.unlock();
            m.c.withdraw(.recv, &w);
            b.at.gone = true;
        }

        fn native(m: *Self) void {
            m.sent = Op.send(&m.c, &m.out, 5);
        }

        fn python(m: *Self) void {
            while (!m.give()) Sim.spin();
        }

        /// False if the goroutine does not wait yet.
        fn give(m: *Self) bool {
            m.lane_lock.lock();
            defer m.lane_lock.unlock();
            const b = m.waiter orelse return m.over;
            const won = b.who().claimed.cmpxchgStrong(0, 1, .acq_rel, .monotonic) == null;
            if (won or Sim.planted == .nobody_passes_by) {
                m.given = true;
                b.at.note.wake();
            }
            return true;
        }

        pub fn end(m: *Self) void {
            check.expect((m.in == m.out) == (m.sent == .done), "a value arrives if it was sent");
            check.expect(!(m.given and m.sent == .done), "two cases happen");
            check.expect(m.c.receivers.isEmpty() and m.c.senders.isEmpty(), "queued");
        }
    };
}
