-- Reserved.

DO 'BEGIN END';
