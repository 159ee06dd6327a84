/*
 * A firmware that only changes memory, in 64 KiB
 *
 * It adds one to the first word of each page of SPAN bytes from FIRST on, again
 * and again, with a pause after each round.  It starts in no time, also where
 * the processor is emulated by one that is emulated.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define FIRST   0x400000
#define SPAN    0x200000
#define PAGE    0x1000
#define PAUSE   0x40000
#define TOP     0xffff0000      /* where this is mapped */
#define FAST_A20 0x92

        .code16
begin:
        cli
        lgdtl   %cs:(table_pointer - begin)
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $(TOP + flat - begin)

        .code32
flat:
        movl    $16, %eax
        movl    %eax, %ds
        inb     $FAST_A20, %al
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $FAST_A20
round:
        movl    $FIRST, %esi
page:
        addl    $1, (%esi)
        addl    $PAGE, %esi
        cmpl    $(FIRST + SPAN), %esi
        jne     page
        movl    $PAUSE, %ecx
pause:
        loop    pause
        jmp     round

        .balign 8
table:
        .quad   0
        .quad   0x00cf9a000000ffff      /* code: all 4 GiB */
        .quad   0x00cf92000000ffff      /* data: the same */
table_pointer:
        .word   table_pointer - table - 1
        .long   TOP + table - begin

        .org    0xfff0                  /* where a processor begins */
        .code16
        jmp     begin
        .org    0x10000
