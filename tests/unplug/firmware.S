/*
 * A guest of 64 KiB: it writes to a ring of pages, and to I/O ports as told
 *
 * It starts as firmware does, at the end of the first 4 GiB.  Each page of the
 * ring gets the number of the round in its first word, so that a page that was
 * lost on the way shows by an old number.  Between pages the first serial port
 * is polled for an order:
 *
 *     'o', port (2 bytes), width (1, 2 or 4), value (4 bytes)
 *
 * which is answered by 'o'.  By that the guest ejects devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define RING    0x100000
#define ORDER   0x7000
#define STACK   0x8000
#define UART    0x3f8

        .code16
        .org 0xf100
pages:  .long 0                 /* of the ring; machine.py fills these in */
loops:  .long 0                 /* after each page */

        .org 0xf200
start:  cli
        lgdtl %cs:(gdtr)
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $8, $(0xf0000 + flat)

        .code32
flat:   movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $STACK, %esp
        xorl %ebx, %ebx

round:  incl %ebx
        movl $RING, %edi
        movl 0xf0000 + pages, %esi
page:   movl %ebx, (%edi)
        addl $4096, %edi
        movl 0xf0000 + loops, %ecx
        incl %ecx
1:      loop 1b
        testl $31, %esi
        jnz 2f
        call poll
2:      decl %esi
        jnz page
        jmp round

/* An order, if there is one */
poll:   movw $(UART + 5), %dx
        inb %dx, %al
        testb $1, %al
        jnz order
        ret

order:  pushl %edi
        call get
        cmpb $'o', %al
        jne 4f
        movl $ORDER, %edi
3:      call get
        movb %al, (%edi)
        incl %edi
        cmpl $(ORDER + 7), %edi
        jne 3b
        call output
        movw $UART, %dx
        movb $'o', %al
        outb %al, %dx
4:      popl %edi
        ret

output: movw ORDER, %dx
        movl ORDER + 3, %eax
        cmpb $2, ORDER + 2
        je 5f
        ja 6f
        outb %al, %dx
        ret
5:      outw %ax, %dx
        ret
6:      outl %eax, %dx
        ret

/* A byte of the serial port, in al */
get:    movw $(UART + 5), %dx
7:      inb %dx, %al
        testb $1, %al
        jz 7b
        movw $UART, %dx
        inb %dx, %al
        ret

        .balign 8
gdt:    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:   .word 23
        .long 0xf0000 + gdt

        .code16
        .org 0xfff0
        ljmpw $0xf000, $start
        .org 0xffff
        .byte 0
