//! sysmon asleep, of a serial lane: zsrc/serial/sysmon.zig as it is, from its first round to its
//! last, beside two Ms that have the P one after the other, each twice. sysmon sleeps for good
//! while no thread has it.
//!
//! One M goes on only after sysmon has looked at it; the other has the P for a moment. Then sysmon
//! is stopped.
//!
//! In another model an M has the P all the time, and sysmon sleeps for as long as it was told: for
//! good, until two threads have changed that, both at about the same time, each a part of it.
const check = @import("../explorer.zig");
const sysmon = @import("../../serial/sysmon.zig");

fn MachineOf(comptime Sim: type) type {
    return struct {
        lost: Sim.Atomic(bool) = .init(false),
        next_all: ?*@This() = null,
        looked_at: Sim.Note = .{},
    };
}

fn LaneOf(comptime Sim: type) type {
    return struct {
        pub const Env = Sim;
        const M = MachineOf(Sim);

        owner: Sim.Atomic(?*M) = .init(null),
        m_lock: Sim.Lock = .{},
        all_m: ?*M = null,
        sysmon: struct {
            thread: ?Sim.Thread = null,
            note: Sim.Note = .{},
            stopping: Sim.Atomic(bool) = .init(false),
            round: Sim.Lock = .{},
            resting: bool = false,
            waiting: Sim.Atomic(bool) = .init(false),
        } = .{},
    };
}

pub fn Told(comptime Sim: type) type {
    return struct {
        const Self = @This();
        pub const threads = .{ .{ "m0", runs }, .{ "a", changesA }, .{ "b", changesB } };

        lane: LaneOf(Sim) = .{},
        m: MachineOf(Sim) = .{},
        /// The host's.
        gil: Sim.Lock = .{},
        /// What sysmon sleeps by, in two parts: for good, until both are short.
        short: [2]Sim.Atomic(bool) = .{ .init(false), .init(false) },

        const Rounds = struct {
            of: *Self,
            seen: bool = false,

            pub fn sleepFor(r: *Rounds) ?u64 {
                r.seen = for (&r.of.short) |*part| {
                    if (!part.load(.monotonic)) break false;
                } else true;
                return if (r.seen) 1 else null;
            }

            pub fn slept(_: *Rounds) void {}
            pub fn woken(_: *Rounds) void {}

            pub fn look(r: *Rounds) void {
                if (r.seen) r.of.m.looked_at.wake();
            }
        };

        fn watch(raw: ?*anyopaque) void {
            const self: *Self = @ptrCast(@alignCast(raw.?));
            var rounds: Rounds = .{ .of = self };
            sysmon.watch(&self.lane, &rounds);
        }

        fn runs(self: *Self) void {
            self.lane.owner.raw = &self.m;
            self.lane.sysmon.thread = .spawn("sysmon", watch, self);
            _ = self.m.looked_at.sleep(null);
            sysmon.stop(&self.lane);
        }

        /// As python/run/tuning.zig.
        fn change(self: *Self, part: usize) void {
            self.gil.lock();
            defer self.gil.unlock();
            if (Sim.planted == .tells_first) sysmon.lookAgain(&self.lane);
            self.short[part].store(true, .monotonic);
            if (Sim.planted != .tells_first) sysmon.lookAgain(&self.lane);
        }

        fn changesA(self: *Self) void {
            self.change(0);
        }

        fn changesB(self: *Self) void {
            self.change(1);
        }
    };
}

pub fn Sleeps(comptime Sim: type) type {
    return struct {
        const Self = @This();
        pub const threads = .{ .{ "m0", watched }, .{ "m1", passes } };

        lane: Lane = .{},
        /// The host's.
        gil: Sim.Lock = .{},
        others: [2]M = .{ .{}, .{} },
        /// m1 has had enough.
        done: Sim.Note = .{},

        const M = MachineOf(Sim);
        const Lane = LaneOf(Sim);

        const Rounds = struct {
            lane: *Lane,

            pub fn sleepFor(_: *Rounds) u64 {
                return 1;
            }

            pub fn slept(_: *Rounds) void {}
            pub fn woken(_: *Rounds) void {}

            pub fn look(r: *Rounds) void {
                if (r.lane.owner.load(.acquire)) |m| m.looked_at.wake();
            }
        };

        fn watch(lane: *Lane) void {
            var rounds: Rounds = .{ .lane = lane };
            sysmon.watch(lane, &rounds);
        }

        fn watched(self: *Self) void {
            const s = &self.lane.sysmon;
            s.thread = .spawn("sysmon", struct {
                fn main(raw: ?*anyopaque) void {
                    watch(@ptrCast(@alignCast(raw.?)));
                }
            }.main, &self.lane);
            const m = &self.others[0];
            for (0..2) |_| {
                m.looked_at.clear();
                self.gil.lock();
                sysmon.own(&self.lane, m);
                _ = m.looked_at.sleep(null);
                self.lane.owner.store(null, .release);
                self.gil.unlock();
            }
            _ = self.done.sleep(null);
            sysmon.stop(&self.lane);
        }

        fn passes(self: *Self) void {
            for (0..2) |_| {
                self.gil.lock();
                sysmon.own(&self.lane, &self.others[1]);
                self.lane.owner.store(null, .release);
                self.gil.unlock();
            }
            self.done.wake();
        }
    };
}
