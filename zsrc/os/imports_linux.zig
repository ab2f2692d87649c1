//! Calls between libraries: has all loaded ones that call a function of another's call a different
//! one instead.
//!
//! A library calls what lies in another through an address that the loader puts in its table (the
//! GOT), by the relocations that its dynamic section lists. Those addresses are changed, under the
//! loader's lock, which `dl_iterate_phdr` holds. Tables that the loader has made read-only (RELRO)
//! are writable for that moment. Calls within one library, and what a program looks up with
//! dlsym(), stay as they are.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const elf = std.elf;
const os = @import("os.zig");
const objects = @import("objects_linux.zig");
const Object = objects.Object;

pub const supported = switch (builtin.cpu.arch) {
    .x86_64, .aarch64 => true,
    else => false,
};

/// What a relocation for a called function says (the psABI of each).
const jump_slot = if (builtin.cpu.arch == .x86_64) 7 else 1026;
const glob_dat = if (builtin.cpu.arch == .x86_64) 6 else 1025;

pub const Redirect = struct {
    name: []const u8,
    /// The address that is called, and the one to call instead.
    from: usize,
    to: usize,
    /// How many libraries call that now, and how many tables could not be written.
    changed: u32 = 0,
    refused: u32 = 0,
    /// The loader's counts of what was loaded, in this round and at the end of the last, and
    /// unloaded; and where what was looked at lies.
    adds: u64 = 0,
    seen_adds: u64 = 0,
    seen_subs: u64 = 0,
    seen: std.ArrayList(usize) = .empty,

    /// Does it in what was loaded since the last time. The library of `from` and the one that
    /// contains `to` are left alone.
    pub fn scan(r: *Redirect) void {
        _ = objects.dl_iterate_phdr(visit, r);
        r.seen_adds = r.adds;
    }

    fn visit(object: *Object, _: usize, context: ?*anyopaque) callconv(.c) c_int {
        const r: *Redirect = @ptrCast(@alignCast(context.?));
        if (r.seen_adds == object.adds and r.seen_subs == object.subs) return 1; // nothing is new
        r.adds = object.adds;
        if (r.seen_subs != object.subs) r.seen.clearRetainingCapacity();
        r.seen_subs = object.subs;
        if (std.mem.indexOfScalar(usize, r.seen.items, object.base) == null) {
            r.seen.append(std.heap.c_allocator, object.base) catch return 1; // next time
            r.look(object);
        }
        return 0;
    }

    fn look(r: *Redirect, object: *const Object) void {
        const headers = object.headers[0..object.header_count];
        var dynamic: ?usize = null;
        var read_only: struct { from: usize = 0, to: usize = 0 } = .{};
        for (headers) |*h| {
            const at = object.base +% h.vaddr;
            switch (h.type) {
                .LOAD => for ([_]usize{ r.from, r.to }) |own| {
                    if (own >= at and own < at + h.memsz) return;
                },
                .DYNAMIC => dynamic = at,
                .GNU_RELRO => read_only = .{ .from = at, .to = at + h.memsz },
                else => {},
            }
        }
        const tables = Tables.read(object.base, dynamic orelse return) orelse return;
        for ([_][]const elf.Elf64.Rela{ tables.calls, tables.data }) |relocations| {
            for (relocations) |rela| {
                const kind = rela.info.type;
                if (kind != jump_slot and kind != glob_dat) continue;
                const symbol = tables.symbols[rela.info.sym];
                const name: [*:0]const u8 = @ptrCast(tables.names + symbol.name);
                if (!std.mem.eql(u8, std.mem.span(name), r.name)) continue;
                r.write(object.base +% rela.offset, read_only.from, read_only.to);
            }
        }
    }

    fn write(r: *Redirect, address: usize, from: usize, to: usize) void {
        const slot: *usize = @ptrFromInt(address);
        if (slot.* == r.to) return;
        const page = address & ~@as(usize, os.page_size - 1);
        const protected = address >= from and address < to;
        const bytes: [*]u8 = @ptrFromInt(page);
        if (protected and
            linux.errno(linux.mprotect(bytes, os.page_size, .{ .READ = true, .WRITE = true })) !=
                .SUCCESS)
        {
            r.refused += 1;
            return;
        }
        @atomicStore(usize, slot, r.to, .release);
        if (protected) _ = linux.mprotect(bytes, os.page_size, .{ .READ = true });
        r.changed += 1;
    }
};

const Tables = struct {
    calls: []const elf.Elf64.Rela = &.{},
    data: []const elf.Elf64.Rela = &.{},
    symbols: [*]const elf.Elf64.Sym,
    names: [*]const u8,

    fn read(base: usize, dynamic: usize) ?Tables {
        var calls: usize = 0;
        var calls_size: usize = 0;
        var data: usize = 0;
        var data_size: usize = 0;
        var symbols: usize = 0;
        var names: usize = 0;
        var entry: [*]const elf.Elf64_Dyn = @ptrFromInt(dynamic);
        while (entry[0].d_tag != elf.DT_NULL) : (entry += 1) switch (entry[0].d_tag) {
            elf.DT_JMPREL => calls = entry[0].d_val,
            elf.DT_PLTRELSZ => calls_size = entry[0].d_val,
            elf.DT_PLTREL => if (entry[0].d_val != elf.DT_RELA) return null,
            elf.DT_RELA => data = entry[0].d_val,
            elf.DT_RELASZ => data_size = entry[0].d_val,
            elf.DT_SYMTAB => symbols = entry[0].d_val,
            elf.DT_STRTAB => names = entry[0].d_val,
            else => {},
        };
        if (symbols == 0 or names == 0) return null;
        return .{
            .calls = list(base, calls, calls_size),
            .data = list(base, data, data_size),
            .symbols = @ptrFromInt(absolute(base, symbols)),
            .names = @ptrFromInt(absolute(base, names)),
        };
    }

    fn list(base: usize, address: usize, size: usize) []const elf.Elf64.Rela {
        if (address == 0) return &.{};
        const first: [*]const elf.Elf64.Rela = @ptrFromInt(absolute(base, address));
        return first[0 .. size / @sizeOf(elf.Elf64.Rela)];
    }

    /// glibc has added the base to what the file says, musl has not.
    fn absolute(base: usize, address: usize) usize {
        return if (address < base) base + address else address;
    }
};

test "a table that cannot be written is counted, and left as it is" {
    const os_page = os.page_size;
    const fd: i32 = @intCast(linux.open("/proc/self/exe", .{ .ACCMODE = .RDONLY }, 0));
    defer _ = linux.close(fd);
    // Of a file that is only read it may never be.
    const at = linux.mmap(null, os_page, .{ .READ = true }, .{ .TYPE = .SHARED }, fd, 0);
    defer _ = linux.munmap(@ptrFromInt(at), os_page);
    const before = @as(*const usize, @ptrFromInt(at)).*;
    var r: Redirect = .{ .name = "", .from = 0, .to = 1 };
    r.write(at, at, at + os_page);
    try std.testing.expectEqual(1, r.refused);
    try std.testing.expectEqual(0, r.changed);
    try std.testing.expectEqual(before, @as(*const usize, @ptrFromInt(at)).*);
}
